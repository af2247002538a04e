//! An append-only file of JSON lines with one writer. A line has been handed to the operating system when `append`
//! returns, so `kill -9` loses nothing that was answered. It is not synced to the disk: losing power is no part of the
//! simulation.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::value::RawValue;

/// The file and where each of its lines begins.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// Byte offset of each line.
    starts: Vec<u64>,
    /// Byte offset behind the last whole line; the next one goes here.
    end: u64,
}

impl Journal {
    /// Opens or creates the file, takes its lock and hands every stored line (without its line feed) to `replay`.
    /// A torn last line was never answered to anybody: it is cut off.
    ///
    /// # Errors
    /// The file cannot be opened, another process holds it, or `replay` refuses a line (named by its number).
    pub(crate) fn open(path: &Path, mut replay: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let shown = path.display();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(|| format!("opening `{shown}`"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another process uses `{shown}`; stop it or set another DATA_DIR")
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking `{shown}`"));
            }
        }
        let mut journal = Self { file, starts: Vec::new(), end: 0 };
        let mut reader = BufReader::new(journal.file.try_clone()?);
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).with_context(|| format!("reading `{shown}`"))?;
            if line.pop() != Some(b'\n') {
                if length > 0 {
                    tracing::warn!(file = %shown, bytes = length, "cut off a torn last line");
                    journal.file.set_len(journal.end)?;
                }
                return Ok(journal);
            }
            replay(&line).with_context(|| format!("line {} of `{shown}`", journal.starts.len() + 1))?;
            journal.starts.push(journal.end);
            journal.end += u64::try_from(length).expect("a line is shorter than 2^64");
        }
    }

    /// Number of lines.
    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Appends whole lines, each ending in a line feed, by one write.
    ///
    /// # Errors
    /// The file system's; then none of the lines is in the journal.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        debug_assert_eq!(lines.last(), Some(&b'\n'), "only whole lines are appended");
        if let Err(error) = self.file.write_all_at(lines, self.end) {
            // What was written of it would else be read back as a line of its own after a restart.
            if let Err(error) = self.file.set_len(self.end) {
                tracing::error!(%error, "half a line is left in the journal");
            }
            return Err(error);
        }
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.starts.push(self.end);
            self.end += u64::try_from(line.len()).expect("a line is shorter than 2^64");
        }
        Ok(())
    }

    /// Reads lines by number, as they were written.
    ///
    /// # Errors
    /// The file system's, or a line that somebody else damaged.
    ///
    /// # Panics
    /// The range goes beyond `len`.
    pub(crate) fn read(&self, lines: Range<usize>) -> io::Result<Vec<Box<RawValue>>> {
        if lines.is_empty() {
            return Ok(Vec::new());
        }
        let from = self.starts[lines.start];
        let to = self.starts.get(lines.end).copied().unwrap_or(self.end);
        let mut bytes = vec![0; usize::try_from(to - from).expect("a page of lines fits memory")];
        self.file.read_exact_at(&mut bytes, from)?;
        bytes
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| serde_json::from_slice(line).map_err(io::Error::from))
            .collect()
    }

    /// Gives the lock back before the file is closed: a server's threads may keep it open a moment longer.
    pub(crate) fn unlock(&self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the journal stays locked until the process ends");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn lines(path: &Path) -> (Journal, Vec<String>) {
        let mut seen = Vec::new();
        let journal = Journal::open(path, |line| {
            seen.push(String::from_utf8(line.to_vec())?);
            Ok(())
        })
        .unwrap();
        (journal, seen)
    }

    #[test]
    fn what_was_appended_is_replayed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let (mut journal, _) = lines(&path);
        journal.append(b"1\n22\n").unwrap();
        journal.append(b"333\n").unwrap();
        let page = journal.read(1..3).unwrap();
        assert_eq!(page.iter().map(|line| line.get()).collect::<Vec<_>>(), ["22", "333"]);
        drop(journal);
        let (mut journal, seen) = lines(&path);
        assert_eq!(seen, ["1", "22", "333"]);
        journal.append(b"4\n").unwrap();
        assert_eq!(journal.read(3..4).unwrap()[0].get(), "4");
    }

    #[test]
    fn a_torn_last_line_is_cut_off_and_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        fs::write(&path, "1\n{\"half\":").unwrap();
        let (mut journal, seen) = lines(&path);
        assert_eq!(seen, ["1"]);
        journal.append(b"2\n").unwrap();
        drop(journal);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n");
    }

    #[test]
    fn a_second_owner_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let (first, _) = lines(&path);
        let error = Journal::open(&path, |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        first.unlock();
        lines(&path);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        fs::write(&path, "1\nx\n").unwrap();
        let error = Journal::open(&path, |line| Ok(serde_json::from_slice::<i64>(line).map(|_| ())?)).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
