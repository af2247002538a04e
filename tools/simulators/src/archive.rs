//! A journal of documents that is listed whole or by key. The documents stay in the file; memory holds an index only,
//! so that the millions of an import cost little. Nothing is ever removed.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::journal::Journal;
use crate::listing::{Page, Window};

/// What an archive needs to know of a document.
pub(crate) trait Document: Serialize + DeserializeOwned {
    /// By what documents are found.
    type Key: Eq + Hash;

    /// The keys of this document, without repeats.
    fn keys(&self) -> Vec<Self::Key>;
}

/// The documents in order of arrival.
#[derive(Debug)]
pub(crate) struct Archive<D: Document> {
    journal: Journal,
    by_key: HashMap<D::Key, Vec<usize>>,
}

impl<D: Document> Archive<D> {
    /// Opens or creates the file and indexes what it holds.
    ///
    /// # Errors
    /// As [`Journal::open`]; a line that is no such document.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let mut by_key = HashMap::new();
        let mut number = 0;
        let journal = Journal::open(path, |line| {
            let document: D = serde_json::from_slice(line).context("not a document of this kind")?;
            index(&mut by_key, &document, number);
            number += 1;
            Ok(())
        })?;
        Ok(Self { journal, by_key })
    }

    /// Appends a document; it is listed, and survives `kill -9`, when this returns.
    ///
    /// # Errors
    /// The file system's; then the document is not in the archive.
    pub(crate) fn append(&mut self, document: &D) -> io::Result<()> {
        let mut line = serde_json::to_vec(document)?;
        line.push(b'\n');
        let number = self.journal.len();
        self.journal.append(&line)?;
        index(&mut self.by_key, document, number);
        Ok(())
    }

    /// A page of all documents or, with a key, of those that have it.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn page(&self, key: Option<&D::Key>, window: Window) -> io::Result<Page<Box<RawValue>>> {
        let Some(key) = key else {
            let lines = window.range(self.journal.len());
            let next = lines.end;
            return Ok(Page::new(self.journal.read(lines)?, next, self.journal.len()));
        };
        let numbers = self.by_key.get(key).map_or(&[][..], Vec::as_slice);
        let first = numbers.partition_point(|number| *number < window.from);
        let chosen = &numbers[first..numbers.len().min(first + window.limit)];
        let mut items = Vec::with_capacity(chosen.len());
        for number in chosen {
            items.append(&mut self.journal.read(*number..*number + 1)?);
        }
        let next = numbers.get(first + chosen.len()).copied().unwrap_or(self.journal.len());
        Ok(Page::new(items, next, self.journal.len()))
    }

    /// See [`Journal::unlock`].
    pub(crate) fn unlock(&self) {
        self.journal.unlock();
    }
}

fn index<D: Document>(by_key: &mut HashMap<D::Key, Vec<usize>>, document: &D, number: usize) {
    for key in document.keys() {
        by_key.entry(key).or_default().push(number);
    }
}
