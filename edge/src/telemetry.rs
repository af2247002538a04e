//! How a process tells what it does: tracing to standard output, JSON lines for programs, plain lines at a terminal.
//!
//! Also the trace context that a request carries into the log. Metrics are [`crate::metrics`]; no customer data is
//! logged anywhere.

use std::fmt;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging. `filter` is the variable LOG, such as `info` or `info,engine=debug`. From here on a panic is a line
/// of the log too.
///
/// # Errors
/// A filter that is none, or logging that was started before.
pub fn init(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| anyhow::anyhow!("LOG is no filter such as info,engine=debug: {error}"))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
    let started = if std::io::stdout().is_terminal() {
        subscriber.try_init()
    } else {
        subscriber.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("starting the log: {error}"))?;
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(panic = %panic, "a thread panicked");
        default_hook(panic);
    }));
    Ok(())
}

/// The W3C trace context of one request (`traceparent`, version 00).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

impl Trace {
    /// Goes on with the caller's trace, or begins one when the header is missing or malformed.
    #[must_use]
    pub fn continued(header: Option<&str>) -> Self {
        let (trace_id, flags) = header.and_then(parse).unwrap_or_else(|| (rand::random::<u128>() | 1, 1));
        Self {
            trace_id,
            // Zero is the one span ID that is none.
            span_id: rand::random::<u64>() | 1,
            flags,
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// Trace ID and flags of a `traceparent` (W3C Trace Context §3.2.2).
fn parse(header: &str) -> Option<(u128, u8)> {
    let mut parts = header.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lower_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    // A later version may have more parts; version 00 may not.
    let whole = version != "00" || parts.next().is_none();
    let formed = lower_hex(version, 2) && lower_hex(trace, 32) && lower_hex(span, 16) && lower_hex(flags, 2);
    if !formed || !whole || version == "ff" {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
    u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
    Some((trace, u8::from_str_radix(flags, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_goes_on_under_a_new_span() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let text = Trace::continued(Some(header)).to_string();
        assert!(text.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && text.ends_with("-01"), "{text}");
        assert_ne!(text, header);
    }

    #[test]
    fn what_is_no_trace_begins_one() {
        for bad in [
            "",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert!(parse(&Trace::continued(None).to_string()).is_some());
    }
}
