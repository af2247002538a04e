//! What can be set.

use edge::config::{Invalid, Reader, Secret};
use host::Settings;

/// The settings of notify-svc.
#[derive(Debug, Clone)]
pub struct Config {
    /// What every service has.
    pub common: Settings,
    /// `SMTP_URL`: the mail server, such as `smtp://127.0.0.1:8225`; may hold a password.
    pub smtp_url: Secret,
    /// `SMS_URL`: where an SMS is posted; may hold a password.
    pub sms_url: Secret,
}

impl Config {
    /// Reads all variables, so that every mistake is told at once.
    ///
    /// # Errors
    /// [`Invalid`] names each variable that is missing or wrong.
    pub fn read(mut reader: Reader) -> Result<Self, Invalid> {
        let common = Settings::read(&mut reader);
        let smtp_url = reader.secret("SMTP_URL");
        let sms_url = reader.secret("SMS_URL");
        reader.finish(|| Some(Self { common: common?, smtp_url: smtp_url?, sms_url: sms_url? }))
    }
}
