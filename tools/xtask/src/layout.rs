//! Where things lie: the checkout, `.orderlog` and what is in it.
//!
//! Paths only, and the few file operations that all of them need; what a file holds is its module's business.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::problem::Problem;

/// What a first `cargo up` takes at most: programs 400 MiB, a release build 3 GiB; a warm one needs far less.
const FREE_MIB_COLD: u64 = 4_096;
/// Below this a broker and a database are better not started.
const FREE_MIB_WARM: u64 = 512;

/// The folders of one stack.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The checkout.
    pub(crate) root: PathBuf,
    /// Everything that belongs to this stack; git ignores it.
    pub(crate) home: PathBuf,
    /// Downloaded programs, shared by the stacks of a checkout.
    pub(crate) tools: PathBuf,
}

impl Layout {
    /// The stack of `cargo up`.
    pub(crate) fn of_checkout() -> Self {
        // cargo tells the folder it was called in; the compiled-in one is for a program that is run by hand.
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest
            .ancestors()
            .find(|folder| folder.join("Cargo.lock").exists())
            .map_or(manifest.clone(), Path::to_path_buf);
        let home = root.join(".orderlog");
        let tools = home.join("tools");
        Self { root, home, tools }
    }

    /// The stack of `cargo verify`, which runs beside that of `cargo up`.
    pub(crate) fn for_verify(&self) -> Self {
        Self { home: self.home.join("verify"), ..self.clone() }
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.home.join("logs")
    }

    pub(crate) fn log_of(&self, part: &str) -> PathBuf {
        self.logs().join(format!("{part}.log"))
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.home.join("keys")
    }

    pub(crate) fn env_file(&self) -> PathBuf {
        self.home.join("env")
    }

    pub(crate) fn stack_file(&self) -> PathBuf {
        self.home.join("stack.json")
    }

    /// Held by the `up` that runs in this folder.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.run().join("lock")
    }

    pub(crate) fn pids_file(&self) -> PathBuf {
        self.run().join("pids.json")
    }

    /// Written by a detached `up` when everything is ready.
    pub(crate) fn ready_file(&self) -> PathBuf {
        self.run().join("ready")
    }

    /// What `up --missing` asks of the running `up`.
    pub(crate) fn request_file(&self) -> PathBuf {
        self.run().join("missing.json")
    }

    pub(crate) fn data_of(&self, part: &str) -> PathBuf {
        self.home.join("data").join(part)
    }

    fn run(&self) -> PathBuf {
        self.home.join("run")
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// [`Problem::NotWritable`].
    pub(crate) fn create(&self) -> Result<()> {
        for folder in [self.run(), self.logs(), self.keys(), self.home.join("data"), self.tools.clone()] {
            make_folder(&folder)?;
        }
        Ok(())
    }

    /// Fails when the disk is too full for what is about to happen.
    ///
    /// # Errors
    /// [`Problem::NoSpace`].
    pub(crate) fn check_space(&self) -> Result<()> {
        let cold = !self.stack_file().exists();
        let needed_mib = if cold { FREE_MIB_COLD } else { FREE_MIB_WARM };
        let existing = self.home.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        let stat = nix::sys::statvfs::statvfs(existing).context("asking for free disk space")?;
        let free_mib = stat.blocks_available() * stat.fragment_size() / (1024 * 1024);
        if free_mib < needed_mib {
            let path = self.home.display().to_string();
            return Err(Problem::NoSpace { path, free_mib, needed_mib }.into());
        }
        Ok(())
    }

    /// Throws away everything but the downloaded programs.
    pub(crate) fn wipe(&self) -> Result<()> {
        let Ok(entries) = fs::read_dir(&self.home) else { return Ok(()) };
        for entry in entries {
            let path = entry?.path();
            // The lock is held by the process that wipes; a new file would be another lock.
            if path == self.tools || path == self.run() || path == self.home.join("verify") {
                continue;
            }
            remove(&path)?;
        }
        Ok(())
    }
}

/// Removes a file or a folder, and where links lead to.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let doing = || format!("removing {}", path.display());
    let meta = fs::symlink_metadata(path).with_context(doing)?;
    if meta.is_symlink() {
        if let Ok(target) = fs::canonicalize(path) {
            fs::remove_dir_all(&target).with_context(doing)?;
        }
        return fs::remove_file(path).with_context(doing);
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).with_context(doing)? {
            remove(&entry?.path())?;
        }
        return fs::remove_dir(path).with_context(doing);
    }
    fs::remove_file(path).with_context(doing)
}

/// Makes a folder and those above it.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .and_then(|()| nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK).map_err(Into::into))
        .map_err(|error| {
            let path = folder.display().to_string();
            Problem::NotWritable { path, why: error.to_string() }.into()
        })
}

/// Replaces a file at once, so that a reader sees the old one or the new one. `mode` as in chmod.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) -> Result<()> {
    let new = path.with_extension("new");
    let doing = || format!("writing {}", path.display());
    fs::remove_file(&new).or_else(ignore_absent).with_context(doing)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new).with_context(doing)?;
    file.write_all(text.as_bytes()).with_context(doing)?;
    fs::rename(&new, path).with_context(doing)
}

/// Turns "no such file" into success, for removals.
pub(crate) fn ignore_absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// A log, begun anew.
pub(crate) fn new_log(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("creating {}", path.display()))
}

/// The last line of a log that says something, for a one-sentence error.
pub(crate) fn last_line(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(8_192)..]).into_owned();
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().take(300).collect())
}

/// Whether a user who is neither owner nor in the group can get to this folder.
pub(crate) fn open_to_all(folder: &Path) -> bool {
    const SEARCHABLE_BY_OTHERS: u32 = 0o001;
    folder.ancestors().filter_map(|above| fs::metadata(above).ok()).all(|meta| meta.mode() & SEARCHABLE_BY_OTHERS != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verify_has_its_own_home_and_the_same_tools() {
        let layout = Layout::of_checkout();
        let verify = layout.for_verify();
        assert!(verify.home.starts_with(&layout.home));
        assert_eq!(verify.tools, layout.tools);
        assert!(layout.root.join("deploy/settings.env").exists());
    }

    #[test]
    fn removal_follows_the_link_to_the_data() {
        let folder = std::env::temp_dir().join(format!("xtask-remove-{}", std::process::id()));
        let data = folder.join("elsewhere");
        make_folder(&data).unwrap();
        fs::write(data.join("row"), "1").unwrap();
        let link = folder.join("link");
        std::os::unix::fs::symlink(&data, &link).unwrap();
        remove(&link).unwrap();
        assert!(!data.exists());
        remove(&folder).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn the_last_line_skips_blank_ones() {
        let path = std::env::temp_dir().join(format!("xtask-log-{}", std::process::id()));
        replace(&path, "one\ntwo\n\n", 0o600).unwrap();
        assert_eq!(last_line(&path).as_deref(), Some("two"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_private_folder_is_not_open_to_all() {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("xtask-private-{}", std::process::id()));
        make_folder(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!open_to_all(&folder));
        fs::remove_dir(folder).unwrap();
    }
}
