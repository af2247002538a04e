//! What a person reads when everything is ready: the demo order, the addresses, what to try next.
//!
//! Every printed command works as it is when pasted in the checkout.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::Result;

use crate::process;
use crate::records::part_name;
use crate::settings::SERVICES;
use crate::sources::on_path;
use crate::stack::{Stack, binary};

/// Commands with places in braces; the tests from outside run each of them.
const TRY_NEXT: &str = include_str!("try_next.txt");

/// Shows a demo order on an empty log, then the addresses and hints.
///
/// # Errors
/// When the demo order does not reach its end.
pub(crate) fn show(
    stack: &Stack,
    binaries: &BTreeMap<String, PathBuf>,
    instances: u16,
    first: bool,
    begun: Instant,
) -> Result<()> {
    if first && instances > 0 {
        println!("\nA first order:");
        let demo = stack.orderctl(binary(binaries, "orderctl")?, &["demo"]);
        // It prints the order's way as it goes.
        let ended = process::wait(demo.spawn(Stdio::inherit(), Stdio::inherit())?)?;
        if !ended.success() {
            anyhow::bail!(
                "the demo order did not reach its end ({ended}); the services' logs are in {}",
                stack.layout.logs().display()
            );
        }
    }
    println!("\nReady after {:.1} s.\n", begun.elapsed().as_secs_f64());
    print!("{}", addresses(stack, instances)?);
    print!("{}", hints(stack, instances)?);
    Ok(())
}

fn addresses(stack: &Stack, instances: u16) -> Result<String> {
    let settings = &stack.settings;
    let mut text = String::new();
    for instance in 0..instances {
        for service in SERVICES {
            let (http, admin) = settings.service_ports(service, instance)?;
            text.push_str(&format!(
                "  {:<16} http://127.0.0.1:{http}/docs/   health http://127.0.0.1:{admin}/readyz\n",
                part_name(service, instance)
            ));
        }
    }
    let rest = [
        ("kafka", format!("127.0.0.1:{}", settings.port("KAFKA_PORT")?)),
        ("registry", crate::registry::url(settings)?),
        ("postgres", format!("127.0.0.1:{} (passwords in .orderlog/stack.json)", settings.port("POSTGRES_PORT")?)),
        ("gateway", format!("http://127.0.0.1:{}/v1/charges", settings.port("GATEWAY_PORT")?)),
        ("mail and SMS", format!("http://127.0.0.1:{}/messages", settings.port("SINK_PORT")?)),
        ("logs", ".orderlog/logs/".to_owned()),
    ];
    for (name, address) in rest {
        text.push_str(&format!("  {name:<16} {address}\n"));
    }
    Ok(text)
}

fn hints(stack: &Stack, instances: u16) -> Result<String> {
    let (order, _) = stack.settings.service_ports("order-svc", 0)?;
    let places = [
        ("{order}", format!("http://127.0.0.1:{order}")),
        ("{sink}", format!("http://127.0.0.1:{}", stack.settings.port("SINK_PORT")?)),
        ("{kafka}", crate::kafka::bootstrap(&stack.settings)?),
        ("{prefix}", stack.settings.get("TOPIC_PREFIX")?.to_owned()),
    ];
    let commands = commands(&places, instances > 0, on_path("kcat").is_some());
    Ok(format!("\nTry next:\n{commands}\n`cargo down` ends everything; so does Ctrl-C in a foreground `cargo up`.\n"))
}

fn commands(places: &[(&str, String)], services: bool, kcat: bool) -> String {
    // Without services there is nothing to ask but the sink.
    let fits = |line: &&str| (services || line.contains("{sink}")) && (kcat || !line.starts_with("kcat "));
    let filled = |line: &str| places.iter().fold(line.to_owned(), |line, (name, place)| line.replace(name, place));
    TRY_NEXT.lines().filter(fits).map(|line| format!("  {}\n", filled(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_suggested() {
        let places = ["{order}", "{sink}", "{kafka}", "{prefix}"].map(|name| (name, "x".to_owned()));
        let all = commands(&places, true, true);
        assert!(all.contains("  kcat -b x ") && !all.contains(['{', '}']), "{all}");
        assert!(!commands(&places, true, false).contains("kcat"));
        assert_eq!(commands(&places, false, true), "  curl -s x/messages\n");
    }
}
