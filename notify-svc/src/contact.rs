//! Where a customer can be reached.
//!
//! Addresses are personal data: they are in one table, never in the log, and never show themselves in `Debug`.

use std::fmt;

use email_address::{EmailAddress, Options};
use events::code::Channel;

/// The longest address that SMTP can carry (RFC 5321 §4.5.3.1.3, less the angle brackets).
pub const EMAIL_BYTES_MAX: usize = 254;
/// E.164: a country code and a number, 15 digits at most; it names no least length.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 2..=15;

/// A text that is no e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address such as ann@example.com, at most {EMAIL_BYTES_MAX} bytes long")]
pub struct NotAnEmail;

/// A text that is no phone number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a phone number as E.164 writes it, such as +4930123456")]
pub struct NotAPhone;

/// A customer's addresses; each may be missing.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Contact {
    /// Parsed by [`email`].
    pub email: Option<String>,
    /// Parsed by [`phone`].
    pub phone: Option<String>,
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Contact").field(&self.reachable()).finish()
    }
}

impl Contact {
    /// The address for a channel.
    #[must_use]
    pub fn address(&self, channel: Channel) -> Option<&str> {
        match channel {
            Channel::Email => self.email.as_deref(),
            Channel::Sms => self.phone.as_deref(),
        }
    }

    /// The channels that have an address.
    #[must_use]
    pub fn reachable(&self) -> Vec<Channel> {
        Channel::ALL.iter().copied().filter(|channel| self.address(*channel).is_some()).collect()
    }
}

/// Parses an e-mail address: one mailbox at a domain, in ASCII, without a name, a comment or quotes. Not every server
/// takes any other.
///
/// # Errors
/// [`NotAnEmail`] for any other text.
pub fn email(text: &str) -> Result<String, NotAnEmail> {
    let options = Options::default().with_required_tld().without_display_text().without_domain_literal();
    if text.len() > EMAIL_BYTES_MAX || !text.is_ascii() || text.contains(['"', '(']) {
        return Err(NotAnEmail);
    }
    EmailAddress::parse_with_options(text, options).map(|address| address.to_string()).map_err(|_| NotAnEmail)
}

/// Parses a phone number in E.164: `+`, country code, number, digits only.
///
/// # Errors
/// [`NotAPhone`] for any other text.
pub fn phone(text: &str) -> Result<String, NotAPhone> {
    let digits = text.strip_prefix('+').ok_or(NotAPhone)?;
    let is_number = PHONE_DIGITS.contains(&digits.len())
        && !digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { Ok(text.to_owned()) } else { Err(NotAPhone) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_mailbox_at_a_domain() {
        for good in ["ann@example.com", "household-7@example.test", "a.b+c@sub.example.org", "o'neil@example.com"] {
            assert_eq!(email(good).as_deref(), Ok(good));
        }
        let long = format!("{}@example.com", "a".repeat(250));
        let bad = [
            "",
            "ann",
            "ann@",
            "@example.com",
            "ann@localhost",
            "ann@[127.0.0.1]",
            "ann@@example.com",
            "ann@exam ple.com",
            "ann@example..com",
            "Ann <ann@example.com>",
            "ann@example.com, bob@example.com",
            "ann@example.com\r\nBcc: bob@example.com",
            "\"a b\"@example.com",
            "ann(home)@example.com",
            "änn@example.com",
            "ann@exämple.com",
            &long,
        ];
        for bad in bad {
            assert_eq!(email(bad), Err(NotAnEmail), "{bad}");
        }
    }

    #[test]
    fn a_phone_number_is_e164() {
        for good in ["+4930123456", "+15550100", "+123456789012345"] {
            assert_eq!(phone(good).as_deref(), Ok(good));
        }
        for bad in ["", "+", "4930123456", "+0493012345", "+49 30 123456", "+1234567890123456", "+4", "+49x0123456"] {
            assert_eq!(phone(bad), Err(NotAPhone), "{bad}");
        }
    }

    #[test]
    fn an_address_does_not_show_itself() {
        let contact = Contact { email: Some("ann@example.com".to_owned()), phone: None };
        assert_eq!(format!("{contact:?}"), "Contact([Email])");
        assert_eq!(contact.reachable(), [Channel::Email]);
        assert_eq!((contact.address(Channel::Email), contact.address(Channel::Sms)), (Some("ann@example.com"), None));
    }
}
