//! orderctl, run against a stack.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::{PARTITIONS, Stack};
use crate::ground::binary;

impl Stack {
    /// Runs orderctl against this stack and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn orderctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let (succeeded, printed, said) = self.try_orderctl(arguments)?;
        ensure!(succeeded, "orderctl {arguments:?} failed\n{printed}\n{said}");
        Ok(printed)
    }

    /// Runs orderctl; says whether it succeeded, what it printed, and what it said beside.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_orderctl(&self, arguments: &[&str]) -> anyhow::Result<(bool, String, String)> {
        let mut command = self.orderctl_command(arguments)?;
        let output = command.output().context("starting orderctl; `cargo verify` builds it")?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.success(), printed, said))
    }

    /// orderctl with this stack's settings, not yet started.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn orderctl_command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(binary("orderctl")?);
        command.args(arguments).envs(self.tool_environment()).stdin(Stdio::null());
        Ok(command)
    }

    /// The variables with which orderctl finds this stack.
    #[must_use]
    pub fn tool_environment(&self) -> BTreeMap<String, String> {
        let usual = [
            ("ORDERLOG_STACK".to_owned(), self.stack_file().display().to_string()),
            ("ORDERLOG_KAFKA".to_owned(), self.kafka.clone()),
            ("ORDERLOG_REGISTRY".to_owned(), self.registry.clone()),
            ("ORDERLOG_TOPIC_PREFIX".to_owned(), self.prefix.clone()),
            ("ORDERLOG_PARTITIONS".to_owned(), PARTITIONS.to_string()),
            ("ORDERLOG_SINK".to_owned(), self.sink.clone()),
            ("ORDERLOG_SIGNING_KEY".to_owned(), self.signing_key_file().display().to_string()),
        ];
        let mended = self.mended().map(|(name, value)| (name.to_owned(), value));
        usual.into_iter().chain(mended).collect()
    }
}
