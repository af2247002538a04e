//! What can be set.

use std::time::Duration;

use edge::config::{Invalid, Reader, Secret};
use host::Settings;

/// Which gateway is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapter {
    /// Over HTTP.
    Http,
    /// None: this process answers by the scripted tokens.
    Inside,
}

/// The settings of payment-svc.
#[derive(Debug, Clone)]
pub struct Config {
    /// What every service has.
    pub common: Settings,
    /// `GATEWAY_ADAPTER`
    pub adapter: Adapter,
    /// `GATEWAY_URL`
    pub gateway_url: String,
    /// `GATEWAY_SECRET`: signs callbacks. Several, with commas between them, while one is replaced by another.
    pub gateway_secret: Secret,
    /// `PUBLIC_URL`: where the gateway reaches this service.
    pub public_url: String,
    /// `ASK_GATEWAY_AFTER`: how long a callback may take before the gateway is asked.
    pub ask_gateway_after: Duration,
}

impl Config {
    /// Reads all variables, so that every mistake is told at once.
    ///
    /// # Errors
    /// [`Invalid`] names each variable that is missing or wrong.
    pub fn read(mut reader: Reader) -> Result<Self, Invalid> {
        let common = Settings::read(&mut reader);
        let adapter = reader.parsed_by_or("GATEWAY_ADAPTER", "http", adapter);
        let gateway_url = reader.text("GATEWAY_URL");
        let gateway_secret = reader.secret("GATEWAY_SECRET");
        let public_url = reader.text("PUBLIC_URL");
        let ask_gateway_after = reader.duration_or("ASK_GATEWAY_AFTER", "30s");
        reader.finish(|| {
            Some(Self {
                common: common?,
                adapter: adapter?,
                gateway_url: gateway_url?,
                gateway_secret: gateway_secret?,
                public_url: public_url?,
                ask_gateway_after: ask_gateway_after?,
            })
        })
    }
}

fn adapter(text: &str) -> Result<Adapter, &'static str> {
    match text {
        "http" => Ok(Adapter::Http),
        "inside" => Ok(Adapter::Inside),
        _ => Err("must be http or inside"),
    }
}
