//! Progress of long work, on stderr.
//!
//! Silent with `--json`, and where stderr is no terminal (indicatif hides it there).

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

const TICK: Duration = Duration::from_millis(120);

/// A group of bars under each other.
#[derive(Debug, Clone)]
pub(crate) struct Progress(MultiProgress);

impl Progress {
    pub(crate) fn new(out: Output) -> Self {
        let target = if out.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Self(MultiProgress::with_draw_target(target))
    }

    /// A bar of known length.
    pub(crate) fn bar(&self, what: &'static str, length: usize) -> ProgressBar {
        let style = ProgressStyle::with_template(
            "{prefix:<12} [{elapsed:>4}] {wide_bar:.green} {human_pos}/{human_len} {per_sec:>12} {msg}",
        );
        let bar = self.0.add(ProgressBar::new(length as u64));
        bar.set_style(style.expect("the template is a constant that a test parses"));
        bar.set_prefix(what);
        bar.enable_steady_tick(TICK);
        bar
    }

    /// A line for work of unknown length.
    pub(crate) fn spinner(&self, what: &'static str) -> ProgressBar {
        let style = ProgressStyle::with_template("{prefix:<12} [{elapsed:>4}] {spinner} {wide_msg}");
        let bar = self.0.add(ProgressBar::new_spinner());
        bar.set_style(style.expect("the template is a constant that a test parses"));
        bar.set_prefix(what);
        bar.enable_steady_tick(TICK);
        bar
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_parse() {
        let progress = Progress::new(Output::new(true));
        progress.bar("orders", 10).inc(1);
        progress.spinner("reading").finish_and_clear();
    }
}
