//! A whole process with a wrong wall clock, by Debian's datefudge.

use anyhow::Context;
use nix::sys::signal::Signal;
use reqwest::header::DATE;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::Field;
use crate::chaos::faults::Who;
use crate::process::Process;

/// What puts datefudge between a process and its wall clock. Libfaketime does more, but it and jemalloc wait for each other.
const DATEFUDGE: [&str; 2] = ["LD_PRELOAD", "DATEFUDGE"];

/// What a service says that does not start for the sake of its clock.
const REFUSAL: &str = "ahead of Postgres'; set it right";

/// The variables for a clock that is so many seconds ahead.
pub(in crate::chaos) fn datefudge(ahead: i64) -> anyhow::Result<[(String, String); 2]> {
    let folders = std::fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path());
    let library = folders.map(|folder| folder.join("datefudge/datefudge.so")).find(|path| path.exists());
    let library = library.context("no datefudge: `apt-get install datefudge` installs it")?;
    let [preload, behind] = DATEFUDGE.map(str::to_owned);
    Ok([(preload, library.display().to_string()), (behind, (-ahead).to_string())])
}

/// Whether it does not run for the sake of its clock.
pub(super) fn has_refused(process: &mut Process) -> bool {
    process.running().is_none() && process.last_lines().trim_end().ends_with(REFUSAL)
}

impl Field {
    /// Kills an instance and starts it with a clock so many seconds ahead. With one far ahead of Postgres' it ends, and says so.
    pub(super) fn give_wrong_time(&mut self, who: Who, ahead: i64) -> anyhow::Result<()> {
        self.end(who, Signal::SIGKILL)?;
        self.stack.process(who.service, who.instance)?.environment.extend(datefudge(ahead)?);
        self.wrong_clocks.insert(who);
        self.start(who)
    }

    /// Kills it and starts it with the machine's. True when its clock was wrong until then.
    pub(super) async fn give_right_time(&mut self, who: Who) -> anyhow::Result<bool> {
        let was_wrong = self.is_clock_wrong(who).await.unwrap_or(false);
        self.wrong_clocks.remove(&who);
        let has_refused = has_refused(self.stack.process(who.service, who.instance)?);
        self.end(who, Signal::SIGKILL)?;
        let process = self.stack.process(who.service, who.instance)?;
        process.environment.retain(|name, _| !DATEFUDGE.contains(&name.as_str()));
        self.start(who)?;
        Ok(was_wrong || has_refused)
    }

    /// Whether the times that an instance writes are some seconds off ours.
    async fn is_clock_wrong(&self, who: Who) -> anyhow::Result<bool> {
        let answer = self.http.get(format!("{}/healthz", self.stack.admin(who.service, who.instance))).send().await?;
        let date = answer.headers().get(DATE).context("an answer has a date")?.to_str()?;
        let its = OffsetDateTime::parse(date, &Rfc2822)?.unix_timestamp();
        Ok((its - self.load.history.now() / 1_000_000).abs() > 2)
    }
}
