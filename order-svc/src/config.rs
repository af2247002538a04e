//! What can be set.

use std::time::Duration;

use edge::config::{Invalid, Reader};
use host::Settings;

/// The settings of order-svc.
#[derive(Debug, Clone)]
pub struct Config {
    /// What every service has.
    pub common: Settings,
    /// `PAY_WITHIN`: an order that is not paid within this time expires.
    pub pay_within: Duration,
}

impl Config {
    /// Reads all variables, so that every mistake is told at once.
    ///
    /// # Errors
    /// [`Invalid`] names each variable that is missing or wrong.
    pub fn read(mut reader: Reader) -> Result<Self, Invalid> {
        let common = Settings::read(&mut reader);
        let pay_within = reader.duration_or("PAY_WITHIN", "15m");
        reader.finish(|| Some(Self { common: common?, pay_within: pay_within? }))
    }
}
