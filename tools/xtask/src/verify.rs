//! `cargo verify`: every layer of checks, one table at the end, nothing left running.
//!
//! Which tests belong to which layer is said in `layers.rs`; the stack they need is started here, beside a running `up`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::binaries::{self, Built};
use crate::cli::{Layer, Verify};
use crate::layers;
use crate::layout::{self, Layout};
use crate::mutants;
use crate::ports;
use crate::postgres;
use crate::problem::Problem;
use crate::process::{self, Program};
use crate::records;
use crate::registry;
use crate::settings::Settings;
use crate::signals;
use crate::sources;
use crate::stack::{Stack, binary};
use crate::status::Status;
use crate::up;

/// Bases of ports for the stack of tests: below the kernel's ephemeral ports, above those of `up`.
const PORT_BASES: std::ops::RangeInclusive<u16> = 24_000..=31_000;
const PORT_BASES_APART: usize = 300;

/// Processes that can be made to fail, or to be wrong: for tests alone.
const TEST_BUILD: &[&str] = &["--features", "edge/failpoints"];

/// How one layer ended.
struct Outcome {
    name: String,
    /// What to run again and where its output is, for each failure; nothing where the layer passed.
    failures: Vec<String>,
    /// Said instead of a result.
    left_out: Option<&'static str>,
    took: Duration,
}

/// One run of the command.
struct Run<'a> {
    layout: Layout,
    options: &'a Verify,
    status: Status,
    outcomes: Vec<Outcome>,
}

/// Runs the command.
///
/// # Errors
/// [`Problem::LayersFailed`] after the table.
pub(crate) fn run(options: &Verify) -> Result<()> {
    let layout = Layout::of_checkout();
    let status = Status::new();
    layout.check_space()?;
    layout.create()?;
    let verify = layout.for_verify();
    verify.create()?;
    let _lock = up::lock(&verify, |pid| Problem::VerifyRunning { pid })?;
    // Every run begins with empty servers and empty logs.
    records::end_leftovers(&verify);
    verify.wipe()?;
    verify.create()?;
    sources::provide_build_tools(&verify, options.no_root, &status)?;
    let mut run = Run { layout: verify, options, status, outcomes: Vec::new() };
    let chosen = layers::chosen(options);
    let result = run.checks(&chosen).and_then(|()| run.tests(&chosen));
    run.print_table();
    result?;
    let failed: Vec<&str> = run.failed().collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Problem::LayersFailed { layers: failed.join(", ") }.into())
}

impl Run<'_> {
    /// The layers that cargo and its tools do alone.
    fn checks(&mut self, chosen: &[Layer]) -> Result<()> {
        for layer in chosen {
            let args: &[&str] = match layer {
                Layer::Fmt => &["fmt", "--all", "--check"],
                Layer::Clippy => &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
                Layer::Deny => &["deny", "check", "bans", "licenses", "sources"],
                _ => continue,
            };
            let begun = Instant::now();
            if *layer == Layer::Deny {
                self.provide_deny()?;
            }
            let log = self.layout.log_of(&name_of(*layer));
            let command = format!("cargo {}", args.join(" "));
            let failures = self.one(binaries::cargo(&self.layout).args(args), &command, &log)?;
            self.note(name_of(*layer), failures, begun);
        }
        Ok(())
    }

    /// cargo-deny is a program of its own, built once into cargo's folder.
    fn provide_deny(&self) -> Result<()> {
        if sources::on_path("cargo-deny").is_some() {
            return Ok(());
        }
        let line = self.status.line("cargo-deny", "building it, once");
        let log = self.layout.log_of("cargo-deny");
        let install = binaries::cargo(&self.layout).args(["install", "--locked", "cargo-deny"]);
        let result = install.run("cargo install cargo-deny", &log);
        line.done(if result.is_ok() { "built" } else { "not built" });
        result
    }

    /// The layers of tests: built once, in one profile and with one set of features; then run one binary after another.
    fn tests(&mut self, chosen: &[Layer]) -> Result<()> {
        let wanted: Vec<Layer> = chosen.iter().copied().filter(|layer| layers::has_tests(*layer)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let args = [&["test", "--workspace", "--no-run"], TEST_BUILD].concat();
        let built = match binaries::build(&self.layout, &args, "tests", &self.status) {
            Ok(built) => built,
            Err(error) => return self.not_built(error, begun),
        };
        self.note("build".to_owned(), Vec::new(), begun);
        let with_servers =
            wanted.iter().any(|layer| layers::needs_stack(*layer) && !layers::tests_of(*layer, &built).is_empty());
        // Dropped at the end of this function, whatever happens: that ends every server.
        let mut stack = None;
        let mut environment = BTreeMap::new();
        for layer in wanted {
            let tests = layers::tests_of(layer, &built);
            if tests.is_empty() {
                self.leave_out(layer);
                continue;
            }
            if with_servers && layers::needs_stack(layer) && stack.is_none() {
                let begun = Instant::now();
                let e2e = chosen.contains(&Layer::E2e) && !layers::tests_of(Layer::E2e, &built).is_empty();
                match self.start_stack(e2e) {
                    Ok((started, given)) => (stack, environment) = (Some(started), given),
                    Err(error) => return self.not_built(error, begun),
                }
                self.note("servers".to_owned(), Vec::new(), begun);
            }
            if layer == Layer::Mutants {
                let begun = Instant::now();
                let failures = mutants::run(&built, &environment, &self.layout)?;
                self.note(name_of(layer), failures, begun);
            } else {
                self.layer(layer, &tests, &environment)?;
            }
        }
        Ok(())
    }

    fn layer(&mut self, layer: Layer, tests: &[&Built], environment: &BTreeMap<String, String>) -> Result<()> {
        let begun = Instant::now();
        let mut failures = Vec::new();
        for test in tests {
            let command = layers::as_command(test);
            let mut program = Program::new(&test.path)
                .env("CARGO_MANIFEST_DIR", test.package_folder.display().to_string())
                .env("INSTA_UPDATE", "no")
                .env("RUST_TEST_THREADS", layers::test_threads(layer));
            if self.options.full {
                program = program.env("ORDERLOG_TEST_FULL", "1");
            }
            program.env.extend(environment.clone());
            program.folder = Some(test.package_folder.clone());
            let log = self.layout.log_of(&format!("{}-{}-{}", name_of(layer), test.package, test.target));
            failures.extend(self.one(program, &command, &log)?);
        }
        self.note(name_of(layer), failures, begun);
        Ok(())
    }

    /// Starts the servers that tests need, on ports of their own and with empty data.
    fn start_stack(&self, e2e: bool) -> Result<(Stack, BTreeMap<String, String>)> {
        let base = ports::free_base(PORT_BASES.step_by(PORT_BASES_APART), 1)
            .context("no free range of 300 ports between 24000 and 31000 for the servers of the tests")?;
        let settings = Settings::new(Some(base))?;
        let programs = sources::provide(&self.layout, &settings, self.options.no_root, &self.status)?;
        if e2e {
            sources::provide_test_tools(&self.layout, self.options.no_root, &self.status)?;
        }
        // Debug programs find overflows, and are built for the tests anyway.
        let args = [&["build", "--workspace", "--bins"], TEST_BUILD].concat();
        let built = binaries::build(&self.layout, &args, "programs", &self.status)?;
        let binaries = built.into_iter().map(|binary| (binary.target, binary.path)).collect();
        let simulators = binary(&binaries, "simulators")?;
        let stack = Stack::new(self.layout.clone(), settings, 0, &self.status)?;
        stack.start_infra(&programs, simulators)?;
        let environment = environment(&stack, simulators)?;
        Ok((stack, environment))
    }

    /// Runs one command with its output on this process' and in a log; returns what to say when it fails.
    fn one(&self, program: Program, command: &str, log: &Path) -> Result<Vec<String>> {
        println!("\n$ {command}");
        let mut child = program.spawn(Stdio::piped(), Stdio::piped())?;
        let file = layout::new_log(log)?;
        let copies = [
            child.stdout.take().map(|out| copy(out, file.try_clone())),
            child.stderr.take().map(|errors| copy(errors, file.try_clone())),
        ];
        let ended = process::wait(child)?;
        for copy in copies.into_iter().flatten() {
            // A lost line of output is no reason to fail.
            drop(copy.join());
        }
        if ended.success() {
            return Ok(Vec::new());
        }
        Ok(vec![format!("`{command}` ({ended}); its output: {}", log.display())])
    }

    fn note(&mut self, name: String, failures: Vec<String>, begun: Instant) {
        self.outcomes.push(Outcome { name, failures, left_out: None, took: begun.elapsed() });
    }

    fn not_built(&mut self, error: anyhow::Error, begun: Instant) -> Result<()> {
        signals::check()?;
        self.note("build".to_owned(), vec![format!("{error:#}")], begun);
        Ok(())
    }

    fn leave_out(&mut self, layer: Layer) {
        self.outcomes.push(Outcome {
            name: name_of(layer),
            failures: Vec::new(),
            left_out: Some("no such tests in the tree"),
            took: Duration::ZERO,
        });
    }

    fn failed(&self) -> impl Iterator<Item = &str> {
        self.outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).map(|outcome| outcome.name.as_str())
    }

    fn print_table(&self) {
        println!("\n{:<12} {:<28} {:>9}", "layer", "result", "seconds");
        for outcome in &self.outcomes {
            let result = match (outcome.left_out, outcome.failures.is_empty()) {
                (Some(why), _) => why,
                (None, true) => "passed",
                (None, false) => "FAILED",
            };
            println!("{:<12} {result:<28} {:>9.1}", outcome.name, outcome.took.as_secs_f64());
        }
        let total: Duration = self.outcomes.iter().map(|outcome| outcome.took).sum();
        println!("{:<12} {:<28} {:>9.1}", "all", "", total.as_secs_f64());
        for failure in self.outcomes.iter().flat_map(|outcome| &outcome.failures) {
            println!("failed: {failure}");
        }
    }
}

fn name_of(layer: Layer) -> String {
    format!("{layer:?}").to_lowercase()
}

/// Copies lines as they come to this process' output and to the log.
fn copy(from: impl Read + Send + 'static, log: std::io::Result<File>) -> thread::JoinHandle<std::io::Result<()>> {
    thread::spawn(move || {
        let mut log = log?;
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line)? > 0 {
            log.write_all(&line)?;
            std::io::stdout().lock().write_all(&line)?;
            line.clear();
        }
        Ok(())
    })
}

/// Where the tests find the servers and programs.
fn environment(stack: &Stack, program: &Path) -> Result<BTreeMap<String, String>> {
    let settings = &stack.settings;
    let http = |port: &str| Ok::<_, anyhow::Error>(format!("http://127.0.0.1:{}", settings.port(port)?));
    let programs = program.parent().map(PathBuf::from).unwrap_or_default();
    let given = [
        ("ORDERLOG_TEST_KAFKA", crate::kafka::bootstrap(settings)?),
        ("ORDERLOG_TEST_REGISTRY", registry::url(settings)?),
        ("ORDERLOG_TEST_POSTGRES", postgres::admin_url(settings, &stack.secrets)?),
        ("ORDERLOG_TEST_GATEWAY", http("GATEWAY_PORT")?),
        ("ORDERLOG_TEST_SINK", http("SINK_PORT")?),
        ("ORDERLOG_TEST_SMTP", format!("127.0.0.1:{}", settings.port("SMTP_PORT")?)),
        ("ORDERLOG_TEST_GATEWAY_SECRET", stack.secrets.get("GATEWAY_SECRET")?.to_owned()),
        ("ORDERLOG_TEST_PROGRAMS", programs.display().to_string()),
    ];
    Ok(given.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_knows_what_failed() {
        let options = Verify { quick: false, full: false, only: Vec::new(), no_root: false };
        let mut run =
            Run { layout: Layout::of_checkout(), options: &options, status: Status::new(), outcomes: Vec::new() };
        run.note("fmt".to_owned(), Vec::new(), Instant::now());
        run.note("unit".to_owned(), vec!["x".to_owned()], Instant::now());
        run.leave_out(Layer::E2e);
        assert_eq!(run.failed().collect::<Vec<_>>(), ["unit"]);
    }

    #[test]
    fn layers_are_named_as_the_command_line_names_them() {
        assert_eq!(
            layers::ALL.map(name_of).join(" "),
            "fmt clippy deny unit contract integration tidy mutants e2e long"
        );
    }
}
