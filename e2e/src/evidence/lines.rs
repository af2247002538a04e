//! Files with one JSON document per line, written by many at once.
//!
//! A line is on its way to the disk before the writer goes on: a run that is killed leaves whole lines.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file that grows by lines, shared by tasks and threads.
#[derive(Debug)]
pub struct Lines {
    file: Mutex<File>,
}

impl Lines {
    /// Goes on with this file of a folder, or begins it.
    ///
    /// # Errors
    /// When folder or file cannot be made.
    pub fn open(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let path = folder.join(name);
        let parent = path.parent().context("a file lies in a folder")?;
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        let file = File::options().create(true).append(true).open(&path);
        Ok(Self { file: Mutex::new(file.with_context(|| format!("opening {}", path.display()))?) })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&self, document: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(document)?;
        line.push(b'\n');
        // A panic between two writes of one line cannot be: a line is one write.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).context("writing a line of evidence")
    }
}

/// Writes a file anew.
///
/// # Errors
/// When it cannot be written.
pub fn write<T: Serialize>(folder: &Path, name: &str, documents: impl IntoIterator<Item = T>) -> anyhow::Result<()> {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
    let mut bytes = Vec::new();
    for document in documents {
        serde_json::to_writer(&mut bytes, &document)?;
        bytes.push(b'\n');
    }
    std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// All lines of a file; none when there is no such file.
///
/// # Errors
/// When one of them cannot be read, which is named.
pub fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), number + 1))
    };
    lines.map(parse).collect()
}
