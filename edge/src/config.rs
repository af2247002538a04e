//! Reads settings from the environment: `X`, or `X_FILE` for a file that holds it.
//!
//! One [`Reader`] per process collects every mistake and names its variable, before anything is opened. What can be set
//! is each service's `config.rs`; nothing has a default here.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A text that never shows itself: passwords, keys, URLs with passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    file: Option<PathBuf>,
}

impl Secret {
    /// A secret that came from nowhere but this process.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), file: None }
    }

    /// The text itself; the one way to it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// The file it was read from, where it may be read again.
    #[must_use]
    pub fn file(&self) -> Option<&PathBuf> {
        self.file.as_ref()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Everything that is wrong with the environment, one sentence per variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Invalid(pub Vec<String>);

/// Reads variables and remembers what was wrong. Read all of them first, then [`Reader::finish`].
#[derive(Debug)]
pub struct Reader {
    variables: HashMap<OsString, OsString>,
    errors: Vec<String>,
}

impl Reader {
    /// Reads this process' environment, once.
    #[must_use]
    pub fn from_env() -> Self {
        Self { variables: std::env::vars_os().collect(), errors: Vec::new() }
    }

    /// Reads these variables instead, for tests.
    #[must_use]
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        let pairs = pairs.iter().map(|(name, value)| (name.into(), value.into()));
        Self { variables: pairs.collect(), errors: Vec::new() }
    }

    fn error(&mut self, name: &str, what: impl Display) {
        self.errors.push(format!("{name} {what}"));
    }

    /// `X`, or the content of the file that `X_FILE` names, without the line break at its end. An empty value is none.
    fn find(&mut self, name: &str) -> Option<Secret> {
        let file_name = format!("{name}_FILE");
        let plain = self.variables.get(&OsString::from(name)).cloned();
        let plain = plain.filter(|value| !value.is_empty());
        let file = self.variables.get(&OsString::from(&file_name)).cloned();
        let file = file.filter(|path| !path.is_empty()).map(PathBuf::from);
        match (plain, file) {
            (Some(_), Some(_)) => {
                self.error(name, format_args!("and {file_name} are both set; set one"));
                None
            }
            (Some(value), None) => match value.into_string() {
                Ok(text) => Some(Secret { text, file: None }),
                Err(_) => {
                    self.error(name, "is no UTF-8");
                    None
                }
            },
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) => Some(Secret { text: text.trim_end_matches(['\r', '\n']).to_owned(), file: Some(path) }),
                Err(error) => {
                    let path = path.display();
                    self.error(&file_name, format_args!("names {path}: {error}"));
                    None
                }
            },
            (None, None) => None,
        }
    }

    fn missing(&mut self, name: &str) {
        // A file that could not be read has been reported under its own name already.
        let reported = self.errors.iter().any(|error| error.starts_with(name));
        if !reported {
            self.error(name, "is not set");
        }
    }

    /// A secret that must be set.
    pub fn secret(&mut self, name: &str) -> Option<Secret> {
        let found = self.find(name);
        if found.is_none() {
            self.missing(name);
        }
        found
    }

    /// A text that must be set.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.secret(name).map(|secret| secret.text)
    }

    /// A text, or this one when the variable is not set.
    pub fn text_or(&mut self, name: &str, default: &str) -> Option<String> {
        let found = self.find(name);
        Some(found.map_or_else(|| default.to_owned(), |secret| secret.text))
    }

    /// A value that must be set and that `parse` takes.
    pub fn parsed_by<T, E: Display>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let text = self.text(name)?;
        self.parse(name, &text, parse)
    }

    /// A value that must be set and that `T` parses: a number, an address.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        self.parsed_by(name, T::from_str)
    }

    /// A value that `parse` takes, or what `parse` makes of the default.
    pub fn parsed_by_or<T, E: Display>(
        &mut self,
        name: &str,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text_or(name, default)?;
        self.parse(name, &text, parse)
    }

    /// A value that `T` parses, or what `T` makes of the default.
    pub fn parsed_or<T: FromStr<Err: Display>>(&mut self, name: &str, default: &str) -> Option<T> {
        self.parsed_by_or(name, default, T::from_str)
    }

    /// A length of time such as `15m`, or the default.
    pub fn duration_or(&mut self, name: &str, default: &str) -> Option<Duration> {
        self.parsed_by_or(name, default, duration)
    }

    /// Lengths of time with commas between them, such as `5s,30s,2m`, or the default.
    pub fn durations_or(&mut self, name: &str, default: &str) -> Option<Vec<Duration>> {
        self.parsed_by_or(name, default, |text| text.split(',').map(duration).collect::<Result<_, _>>())
    }

    fn parse<T, E: Display>(&mut self, name: &str, text: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(name, format_args!("is wrong: {error}"));
                None
            }
        }
    }

    /// Builds the configuration when nothing was wrong; `build` unwraps what was read with `?`.
    ///
    /// # Errors
    /// [`Invalid`] with one sentence per variable that is missing or wrong.
    pub fn finish<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T, Invalid> {
        if !self.errors.is_empty() {
            return Err(Invalid(self.errors));
        }
        build().ok_or_else(|| Invalid(vec!["a value is missing although no variable is wrong".to_owned()]))
    }
}

/// A text that is no length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a length of time is a whole number and ms, s, m, h or d, such as 500ms, 10s or 15m")]
pub struct NotADuration;

/// Parses `500ms`, `10s`, `15m`, `24h`, `7d`.
///
/// # Errors
/// [`NotADuration`] for any other text, and beyond 2^64 milliseconds.
pub fn duration(text: &str) -> Result<Duration, NotADuration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(NotADuration),
    };
    let number: u64 = number.parse().map_err(|_| NotADuration)?;
    number.checked_mul(millis_per_unit).map(Duration::from_millis).ok_or(NotADuration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_variable_is_named() {
        let mut reader = Reader::from_pairs(&[
            ("PARTITIONS", "six"),
            ("PAY_WITHIN", "15"),
            ("KEY_FILE", "/nowhere/at/all"),
            ("BOTH", "x"),
            ("BOTH_FILE", "y"),
            ("EMPTY", ""),
        ]);
        reader.parsed::<u16>("PARTITIONS");
        reader.duration_or("PAY_WITHIN", "15m");
        reader.secret("KEY");
        reader.text("BOTH");
        reader.text("EMPTY");
        let Invalid(errors) = reader.finish(|| Some(())).unwrap_err();
        let names: Vec<_> = errors.iter().filter_map(|error| error.split(' ').next()).collect();
        assert_eq!(names, ["PARTITIONS", "PAY_WITHIN", "KEY_FILE", "BOTH", "EMPTY"], "{errors:?}");
    }

    #[test]
    fn a_secret_comes_from_its_file_and_does_not_show() {
        let path = std::env::temp_dir().join(format!("edge-secret-{}", std::process::id()));
        std::fs::write(&path, "hush\n").unwrap();
        let mut reader = Reader::from_pairs(&[("KEY_FILE", path.to_str().unwrap())]);
        let secret = reader.secret("KEY").unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(secret.reveal(), "hush");
        assert_eq!(secret.file(), Some(&path));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        for bad in ["", "15", "m", "-1s", "1.5s", "1 s", "1w", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(duration(bad), Err(NotADuration), "{bad}");
        }
        let mut reader = Reader::from_pairs(&[]);
        let delays = reader.durations_or("RETRY_DELAYS", "5s,30s,2m,10m").unwrap();
        assert_eq!(delays.len(), 4);
    }
}
