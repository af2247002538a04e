//! What must be secret or random on one machine: passwords, the gateway's secret, the key that signs tokens.
//!
//! Made at the first `up`, kept in `.orderlog/env` and `.orderlog/keys`, and never printed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};

use crate::layout::{self, Layout};
use crate::process::Program;
use crate::settings::{self, SERVICES, database_of};

/// Secrets by the name they have in the `env` file.
#[derive(Debug, Clone)]
pub(crate) struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// Those of an earlier `up`, and new ones for what is not there yet.
    pub(crate) fn load(layout: &Layout) -> Result<Self> {
        let earlier = fs::read_to_string(layout.env_file()).unwrap_or_default();
        let earlier = settings::parse(&earlier).with_context(|| format!("reading {}", layout.env_file().display()))?;
        let mut secrets = BTreeMap::new();
        for name in names() {
            let secret = match earlier.get(&name) {
                Some(known) => known.clone(),
                None => random_hex()?,
            };
            secrets.insert(name, secret);
        }
        Ok(Self(secrets))
    }

    /// One of the secrets.
    ///
    /// # Errors
    /// A name that is none.
    pub(crate) fn get(&self, name: &str) -> Result<&str> {
        self.0.get(name).map(String::as_str).with_context(|| format!("no secret {name}"))
    }

    /// The password of a database's role; `postgres` for the superuser.
    pub(crate) fn password_of(&self, role: &str) -> Result<&str> {
        self.get(&password_name(role))
    }

    /// The passwords as `deploy/databases.sql` takes them from the environment.
    pub(crate) fn passwords(&self) -> BTreeMap<String, String> {
        let mut passwords = self.0.clone();
        passwords.retain(|name, _| name.ends_with("_DB_PASSWORD"));
        passwords
    }

    /// Writes `.orderlog/env`: these secrets and `addresses`, one NAME=value per line, for the owner only.
    pub(crate) fn write_env(&self, layout: &Layout, addresses: &BTreeMap<String, String>) -> Result<()> {
        let mut text = String::new();
        for (name, value) in addresses.iter().chain(&self.0) {
            text.push_str(&format!("{name}={value}\n"));
        }
        layout::replace(&layout.env_file(), &text, 0o600)
    }
}

fn password_name(role: &str) -> String {
    format!("{}_DB_PASSWORD", role.to_uppercase())
}

fn names() -> impl Iterator<Item = String> {
    let roles = SERVICES.map(database_of).into_iter().chain(["registry", "postgres"]);
    roles.map(password_name).chain(["GATEWAY_SECRET".to_owned()])
}

/// 32 random bytes of the kernel, as 64 hexadecimal digits.
pub(crate) fn random_hex() -> Result<String> {
    let mut bytes = [0_u8; 32];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("reading random bytes from /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes the Ed25519 key pair that signs and verifies tokens, if it is not there: by openssl, else by orderctl.
pub(crate) fn make_signing_key(layout: &Layout, openssl: Option<&Path>, orderctl: &Path) -> Result<()> {
    let (signing, verifying) = (layout.keys().join("signing.pem"), layout.keys().join("verify.pem"));
    if signing.exists() && verifying.exists() {
        return Ok(());
    }
    let log = layout.log_of("keys");
    let Some(openssl) = openssl else {
        let make = Program::new(orderctl).args(["keys", "--dir"]).args([layout.keys()]);
        return make.run("making the key that signs tokens", &log);
    };
    let private = layout.keys().join("signing.new");
    layout::replace(&private, "", 0o600)?;
    Program::new(openssl)
        .args(["genpkey", "-algorithm", "ed25519", "-out"])
        .args([&private])
        .run("making the key that signs tokens", &log)?;
    Program::new(openssl)
        .args(["pkey", "-pubout", "-in"])
        .args([&private])
        .args(["-out"])
        .args([&verifying])
        .run("making the key that verifies tokens", &log)?;
    fs::rename(&private, &signing).context("keeping the key that signs tokens")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_survive_the_next_up_and_differ_from_each_other() {
        let mut layout = Layout::of_checkout();
        layout.home = std::env::temp_dir().join(format!("xtask-secrets-{}", std::process::id()));
        layout::make_folder(&layout.home).unwrap();
        let first = Secrets::load(&layout).unwrap();
        first.write_env(&layout, &BTreeMap::from([("ORDERLOG_KAFKA".into(), "k".into())])).unwrap();
        let second = Secrets::load(&layout).unwrap();
        assert_eq!(first.0, second.0);
        assert_ne!(first.get("GATEWAY_SECRET").unwrap(), first.password_of("order").unwrap());
        assert_eq!(first.passwords().len(), 6);
        layout::remove(&layout.home).unwrap();
    }
}
