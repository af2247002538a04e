//! Two programs in another language, `e2e/independent/`, which share no code with Orderlog: one reads the log, one asks
//! the APIs for thousands of wrong things. What both of us misread the same way is found by neither of our own tests.
//!
//! Here they are given a stack with orders of all ends; what they judge by is theirs.

use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, ensure};
use e2e::check;
use e2e::client::{Client, order, place, stocked_product, wait_for_status};
use e2e::stack::{Options, Stack};
use serde_json::json;

/// A Python with the libraries that the programs need, apart from the system's.
struct Python {
    programs: PathBuf,
    libraries: PathBuf,
}

impl Python {
    /// Fetches the libraries into the checkout's own folder, once per list of them and version of Python.
    fn provide() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("e2e lies in the workspace")?;
        let programs = root.join("e2e/independent");
        let requirements = programs.join("requirements.txt");
        let version = run(Command::new("python3").arg("--version")).context("the tests need Python 3.11 or later")?;
        let mut hasher = DefaultHasher::new();
        (std::fs::read_to_string(&requirements)?, version.stdout).hash(&mut hasher);
        let tools = root.join(".orderlog/tools");
        let libraries = tools.join(format!("python-{:x}", hasher.finish()));
        if !libraries.exists() {
            std::fs::create_dir_all(&tools)?;
            // It gets its name only when it is complete.
            let part = tempfile::tempdir_in(&tools)?;
            let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"];
            let mut fetch = Command::new("python3");
            fetch.args(pip).arg("--only-binary=:all:").arg("--target").arg(part.path()).arg("-r").arg(requirements);
            run(&mut fetch).context("fetching the libraries of e2e/independent with pip (package python3-pip)")?;
            let renamed = std::fs::rename(part.path(), &libraries);
            // Another test may have been first.
            ensure!(renamed.is_ok() || libraries.exists(), "{}: {renamed:?}", libraries.display());
        }
        Ok(Self { programs, libraries })
    }

    fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> anyhow::Result<Output> {
        let mut command = Command::new("python3");
        command.args(arguments).current_dir(&self.programs).env("PYTHONPATH", &self.libraries);
        run(command.env("PYTHONDONTWRITEBYTECODE", "1"))
    }
}

/// An error with everything that was printed, when it ends in failure.
fn run(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}\n{printed}\n{said}", output.status);
    Ok(output)
}

/// Orders of all ends: confirmed, cancelled for each reason, rejected, refunded. Returns those that expire later.
async fn orders_of_all_ends(stack: &Stack) -> anyhow::Result<(Client, Vec<String>)> {
    let customer = Client::customer(stack, "independent")?;
    let contact = format!("{}/v1/contacts/independent", stack.http("notify-svc", 0));
    customer.put(&contact, &json!({"email": "independent@example.test", "phone": "+4915112345678"})).await?;
    let (plenty, scarce) = (stocked_product(stack, 99, 1_000).await?, stocked_product(stack, 20, 1).await?);
    let mut expiring = Vec::new();
    for method in ["pm_never", "pm_late"] {
        expiring.push(place(stack, &customer, &order(&[(&plenty, 1)], method)).await?);
    }
    let mut ends = Vec::new();
    let confirmed = ["pm_ok", "pm_twice", "pm_early"].map(|method| (method, "CONFIRMED"));
    let cancelled = ["pm_declined", "pm_failed", "pm_wrong_amount"].map(|method| (method, "CANCELLED"));
    for (method, status) in confirmed.into_iter().chain(cancelled) {
        ends.push((place(stack, &customer, &order(&[(&plenty, 2)], method)).await?, status));
    }
    ends.push((place(stack, &customer, &order(&[(&plenty, 1), (&scarce, 2)], "pm_ok")).await?, "CANCELLED"));
    let mut dear = order(&[(&plenty, 1)], "pm_ok");
    dear["expected_total"] = json!({"amount": 1, "currency": "USD"});
    let rejected = customer.post(&format!("{}/v1/orders", stack.http("order-svc", 0)), &dear).await?;
    ensure!(rejected.status == 409, "{rejected:?}");
    for (id, status) in ends {
        wait_for_status(stack, &customer, &id, status).await?;
    }
    Ok((customer, expiring))
}

#[test]
fn the_programs_themselves_can_fail() -> anyhow::Result<()> {
    Python::provide()?.run(&["-m", "unittest", "discover"]).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_and_a_client_that_share_no_code_find_nothing() -> anyhow::Result<()> {
    let python = Python::provide()?;
    let mut stack = Stack::start(&Options { pay_within: "25s", ..Options::default() }).await?;
    let judged = async {
        let (customer, expiring) = orders_of_all_ends(&stack).await?;
        let (file, key) = (stack.stack_file(), stack.signing_key_file());
        let file = file.to_str().context("a temporary folder is plain text")?;
        let key = key.to_str().context("a temporary folder is plain text")?;
        let secret = stack.gateway_secret.as_str();
        python.run(&["black_box.py", "--stack", file, "--signing-key", key, "--gateway-secret", secret])?;
        for id in &expiring {
            wait_for_status(&stack, &customer, id, "EXPIRED").await?;
        }
        check::everything(&stack).await?;
        python.run(&["read_log.py", "--stack", file, "--settled"])
    };
    match judged.await {
        Ok(output) => println!("{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => panic!("{error:#}\nlogs: {}", stack.keep_logs().display()),
    }
    Ok(())
}
