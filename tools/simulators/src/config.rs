//! What can be set, read once from the environment: `X`, or `X_FILE` for a file that holds it. Nothing is opened here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::{env, fmt, fs};

use anyhow::{Context, bail, ensure};

const GATEWAY_ADDR: &str = "127.0.0.1:8201";
const SINK_ADDR: &str = "127.0.0.1:8202";
const SMTP_ADDR: &str = "127.0.0.1:8225";

/// A secret whose `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps the bytes as they are.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// Settings of the payment gateway.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// `GATEWAY_ADDR`: where HTTP listens; port 0 takes a free one.
    pub addr: SocketAddr,
    /// `GATEWAY_SECRET`: signs callbacks.
    pub secret: Secret,
    /// `DATA_DIR`: folder of the append-only files; made when missing.
    pub data_dir: PathBuf,
    /// `PUBLIC_URL`: under which customers reach the checkout page; unset, the bound address.
    pub public_url: Option<String>,
}

impl GatewayConfig {
    /// Reads the environment.
    ///
    /// # Errors
    /// A variable that is missing or cannot be read, named.
    pub fn from_env() -> anyhow::Result<Self> {
        Self::read(&from_process)
    }

    fn read(lookup: Lookup<'_>) -> anyhow::Result<Self> {
        let secret = required(lookup, "GATEWAY_SECRET")?;
        Ok(Self {
            addr: addr(lookup, "GATEWAY_ADDR", GATEWAY_ADDR)?,
            secret: Secret::new(secret),
            data_dir: data_dir(lookup, ".orderlog/gateway")?,
            public_url: public_url(lookup)?,
        })
    }
}

/// Settings of the mail and SMS sink.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// `SINK_ADDR`: where HTTP listens; port 0 takes a free one.
    pub http_addr: SocketAddr,
    /// `SMTP_ADDR`: where SMTP listens; port 0 takes a free one.
    pub smtp_addr: SocketAddr,
    /// `DATA_DIR`: folder of the append-only file; made when missing.
    pub data_dir: PathBuf,
}

impl SinkConfig {
    /// Reads the environment.
    ///
    /// # Errors
    /// A variable that cannot be read, named.
    pub fn from_env() -> anyhow::Result<Self> {
        Self::read(&from_process)
    }

    fn read(lookup: Lookup<'_>) -> anyhow::Result<Self> {
        Ok(Self {
            http_addr: addr(lookup, "SINK_ADDR", SINK_ADDR)?,
            smtp_addr: addr(lookup, "SMTP_ADDR", SMTP_ADDR)?,
            data_dir: data_dir(lookup, ".orderlog/sink")?,
        })
    }
}

/// `LOG`: a filter such as `info` or `simulators=debug`; unset, `info`.
///
/// # Errors
/// `LOG_FILE` names a file that cannot be read.
pub fn log_filter() -> anyhow::Result<String> {
    Ok(variable(&from_process, "LOG")?.unwrap_or_else(|| "info".to_owned()))
}

#[expect(clippy::disallowed_methods, reason = "this is the crate's Config, which reads the environment")]
fn from_process(name: &str) -> Option<String> {
    env::var(name).ok()
}

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variable, or the text of the file that `<name>_FILE` names, without white space at its ends; empty is unset.
fn variable(lookup: Lookup<'_>, name: &str) -> anyhow::Result<Option<String>> {
    let file = format!("{name}_FILE");
    let text = match (lookup(name), lookup(&file)) {
        (Some(_), Some(_)) => bail!("both {name} and {file} are set; set one"),
        (Some(value), None) => value,
        (None, Some(path)) => fs::read_to_string(&path).with_context(|| format!("{file}: cannot read `{path}`"))?,
        (None, None) => return Ok(None),
    };
    Ok(Some(text.trim().to_owned()).filter(|value| !value.is_empty()))
}

fn required(lookup: Lookup<'_>, name: &str) -> anyhow::Result<String> {
    variable(lookup, name)?.with_context(|| format!("{name} is not set, nor {name}_FILE"))
}

fn addr(lookup: Lookup<'_>, name: &str, default: &str) -> anyhow::Result<SocketAddr> {
    let text = variable(lookup, name)?.unwrap_or_else(|| default.to_owned());
    text.parse().with_context(|| format!("{name}: `{text}` is not an address such as {default}"))
}

fn data_dir(lookup: Lookup<'_>, default: &str) -> anyhow::Result<PathBuf> {
    Ok(variable(lookup, "DATA_DIR")?.unwrap_or_else(|| default.to_owned()).into())
}

fn public_url(lookup: Lookup<'_>) -> anyhow::Result<Option<String>> {
    let Some(text) = variable(lookup, "PUBLIC_URL")? else {
        return Ok(None);
    };
    let web = reqwest::Url::parse(&text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    ensure!(web, "PUBLIC_URL: `{text}` is not an http or https URL");
    Ok(Some(text.trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(pairs: &[(&str, &str)]) -> anyhow::Result<GatewayConfig> {
        GatewayConfig::read(&|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn defaults_are_the_documented_ports() {
        let config = gateway(&[("GATEWAY_SECRET", "s")]).unwrap();
        assert_eq!(config.addr.port(), 8201);
        let sink = SinkConfig::read(&|_| None).unwrap();
        assert_eq!((sink.http_addr.port(), sink.smtp_addr.port()), (8202, 8225));
    }

    #[test]
    fn a_secret_may_come_from_a_file_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "hush\n").unwrap();
        let config = gateway(&[("GATEWAY_SECRET_FILE", path.to_str().unwrap())]).unwrap();
        assert_eq!(config.secret.expose(), b"hush");
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn a_bad_variable_names_itself() {
        let missing = gateway(&[]).unwrap_err().to_string();
        assert!(missing.contains("GATEWAY_SECRET"), "{missing}");
        let addr = gateway(&[("GATEWAY_SECRET", "s"), ("GATEWAY_ADDR", "here")]).unwrap_err().to_string();
        assert!(addr.contains("GATEWAY_ADDR"), "{addr}");
        let url = gateway(&[("GATEWAY_SECRET", "s"), ("PUBLIC_URL", "ftp://x")]).unwrap_err().to_string();
        assert!(url.contains("PUBLIC_URL"), "{url}");
        let both = gateway(&[("GATEWAY_SECRET", "s"), ("GATEWAY_SECRET_FILE", "f")]).unwrap_err().to_string();
        assert!(both.contains("set one"), "{both}");
    }
}
