//! A disk with an end: a file system in memory, which only root may make.

use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// Gone with the value.
#[derive(Debug)]
pub(super) struct Disk(PathBuf);

impl Disk {
    /// At this empty folder.
    pub(super) fn make(place: PathBuf, bytes: u64) -> anyhow::Result<Self> {
        let size = format!("size={bytes}");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&place).status()?;
        ensure!(status.success(), "only root can make a small disk: mount ended with {status}");
        Ok(Self(place))
    }

    /// Not a byte is left.
    pub(super) fn fill(&self) -> anyhow::Result<()> {
        match std::io::copy(&mut std::io::repeat(0), &mut File::create(self.filler())?) {
            Err(error) if error.kind() == ErrorKind::StorageFull => Ok(()),
            other => bail!("a disk without an end: {other:?}"),
        }
    }

    pub(super) fn free(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.filler()).context("freeing the disk")
    }

    /// Beside what the server keeps in it, whose names it does not have.
    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Who still has a file open there goes on having it.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}
