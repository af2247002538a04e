//! What can be set.

use edge::config::{Invalid, Reader};
use host::Settings;

/// The settings of inventory-svc.
#[derive(Debug, Clone)]
pub struct Config {
    /// What every service has.
    pub common: Settings,
}

impl Config {
    /// Reads all variables, so that every mistake is told at once.
    ///
    /// # Errors
    /// [`Invalid`] names each variable that is missing or wrong.
    pub fn read(mut reader: Reader) -> Result<Self, Invalid> {
        let common = Settings::read(&mut reader);
        reader.finish(|| Some(Self { common: common? }))
    }
}
