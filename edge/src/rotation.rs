//! A value made of a secret that may change while the process runs: read again from its file, parsed, swapped in.
//!
//! A secret that was given in a variable stays as it is. A file that has become unreadable or wrong changes nothing but
//! the log, so a half-written file locks nobody out.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::config::Secret;

/// How often a file is looked at.
const READ_AGAIN_SECONDS: u64 = 10;

type Parse<T> = Box<dyn Fn(&str) -> Result<T, String> + Send + Sync>;

/// The current value, and where the next one comes from.
pub struct Rotating<T> {
    current: RwLock<Arc<T>>,
    file: Option<PathBuf>,
    parse: Parse<T>,
}

impl<T> fmt::Debug for Rotating<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotating").field("file", &self.file).finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Rotating<T> {
    /// Parses the secret as it is now.
    ///
    /// # Errors
    /// That of `parse`.
    pub fn new<E: Display>(
        secret: &Secret,
        parse: impl Fn(&str) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        let current = RwLock::new(Arc::new(parse(secret.reveal())?));
        Ok(Self {
            current,
            file: secret.file().cloned(),
            parse: Box::new(move |text| parse(text).map_err(|error| error.to_string())),
        })
    }

    /// The value to use now.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        let current = self.current.read();
        current.unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Looks at the file every 10 s until nobody else holds this value.
    pub fn watch(self: &Arc<Self>) {
        let Some(path) = self.file.clone() else { return };
        let watched = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(READ_AGAIN_SECONDS)).await;
                let Some(rotating) = watched.upgrade() else { return };
                let text = tokio::fs::read_to_string(&path).await;
                rotating.take(text.map_err(|error| error.to_string()));
            }
        });
    }

    fn take(&self, text: Result<String, String>) {
        match text.and_then(|text| (self.parse)(text.trim_end_matches(['\r', '\n']))) {
            Ok(value) => {
                let mut current = self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner);
                *current = Arc::new(value);
            }
            Err(error) => {
                let file = self.file.as_ref().map(|path| path.display().to_string());
                tracing::warn!(file, error, "a secret's file cannot be used; the one before it stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_changes_nothing() {
        let rotating = Rotating::new(&Secret::new("7"), str::parse::<u8>).unwrap();
        rotating.take(Ok("8\n".into()));
        assert_eq!(*rotating.get(), 8);
        rotating.take(Ok("many".into()));
        rotating.take(Err("no such file".into()));
        assert_eq!(*rotating.get(), 8);
    }
}
