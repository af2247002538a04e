//! A disk with an end: a file system in memory, which only root may make.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Written at once.
const CHUNK_BYTES: usize = 1 << 16;

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
        let mut file = File::create(self.filler())?;
        let mut chunk: &[u8] = &[0; CHUNK_BYTES];
        loop {
            match file.write(chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull && chunk.len() == 1 => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => chunk = &chunk[..chunk.len() / 2],
                Err(error) => return Err(error).context("filling the disk"),
            }
        }
    }

    pub(super) fn free(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.filler()).context("freeing the disk")
    }

    /// Beside what the server keeps in it, whose names it does not have.
    fn filler(&self) -> PathBuf {
        Path::new(&self.0).join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Who still has a file open there goes on having it.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}
