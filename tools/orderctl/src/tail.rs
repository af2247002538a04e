//! `orderctl tail`: the records of a topic, decoded, merged over the partitions by time.
//!
//! Without a start everything is shown, and `--limit` means the last ones; with a start it means the first ones.

use std::collections::VecDeque;
use std::io::{BufWriter, Write, stdout};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use engine::clock;
use engine::kafka::Kafka;
use engine::record::Record;
use events::codec::Codec;
use events::envelope::{self, name};
use events::time::Timestamp;

use crate::cli::Tail;
use crate::duration::duration;
use crate::log::{Follower, Merged, Start, ranges};
use crate::output::Output;
use crate::settings::Settings;
use crate::{decoded, topics};

const POLL: Duration = Duration::from_millis(100);

pub(crate) async fn run(settings: &Settings, out: Output, args: Tail) -> anyhow::Result<ExitCode> {
    let start = start(&args)?;
    check_topic(&args.topic)?;
    let kafka = settings.kafka_answers().await?;
    let codec = settings.registry()?.codec_without_memory().await?;
    let read = tokio::task::spawn_blocking(move || read(&kafka, &codec, out, &args, start));
    tokio::select! {
        done = read => done.context("reading the log")??,
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A topic that is not there is an error of librdkafka's that names a partition; this one names the topics.
fn check_topic(name: &str) -> anyhow::Result<()> {
    let known: Vec<String> = topics::all().into_iter().map(|topic| topic.name).collect();
    if !known.iter().any(|known| known == name) {
        bail!("there is no topic {name}; there are {}", known.join(", "));
    }
    Ok(())
}

fn start(args: &Tail) -> anyhow::Result<Option<Start>> {
    if let Some(offset) = args.from_offset {
        return Ok(Some(Start::Offset(offset)));
    }
    let Some(text) = &args.from_time else {
        return Ok(None);
    };
    if let Ok(ago) = duration(text) {
        return Ok(Some(Start::Time(clock::wall().minus(ago))));
    }
    let time = Timestamp::parse(text).with_context(|| {
        format!("--from-time {text}: must be a time such as 2025-01-31T12:00:00Z, or so long ago, such as 10m")
    })?;
    Ok(Some(Start::Time(time)))
}

fn read(kafka: &Kafka, codec: &Codec, out: Output, args: &Tail, start: Option<Start>) -> anyhow::Result<()> {
    let topic = kafka.topic(&args.topic);
    let only_new = args.follow && start.is_none() && args.limit.is_none();
    let from = start.unwrap_or(if only_new { Start::End } else { Start::Beginning });
    // All partitions, also for one key: a record that lies on a wrong one is what somebody may be looking for.
    let ranges = ranges(kafka, &[topic], args.partition, from)?;
    let mut printer = Printer { codec, out, to: BufWriter::new(stdout()) };
    let limit = args.limit.unwrap_or(usize::MAX);
    let mut merged = Merged::open(kafka, &ranges)?;
    let mut last = VecDeque::new();
    let mut shown = 0;
    while shown < limit
        && let Some(record) = merged.next()?
    {
        if !wanted(args, &record) {
            continue;
        }
        if start.is_none() && args.limit.is_some() {
            last.push_back(record);
            if last.len() > limit {
                last.pop_front();
            }
        } else {
            shown += 1;
            printer.print(&record)?;
        }
    }
    drop(merged);
    for record in last {
        printer.print(&record)?;
    }
    printer.to.flush()?;
    if args.follow && shown < limit {
        let ends = ranges.into_iter().map(|(place, _, end)| (place, end));
        follow(&Follower::open(kafka, ends)?, args, &mut printer, limit - shown)?;
    }
    Ok(())
}

fn follow(follower: &Follower, args: &Tail, printer: &mut Printer<'_>, most: usize) -> anyhow::Result<()> {
    // With a start, `--limit` counts these too; without one it was about the past only.
    let mut left = if args.from_offset.is_some() || args.from_time.is_some() { most } else { usize::MAX };
    while left > 0 {
        if let Some(record) = follower.poll(POLL)?
            && wanted(args, &record)
        {
            printer.print(&record)?;
            printer.to.flush()?;
            left -= 1;
        }
    }
    Ok(())
}

fn wanted(args: &Tail, record: &Record) -> bool {
    let key = args.key.as_ref().is_none_or(|key| record.key.as_deref() == Some(key.as_bytes()));
    let kind = envelope::text(&record.headers, name::TYPE).unwrap_or_default();
    let fits = |wanted: &String| kind == wanted || kind.rsplit('.').next() == Some(wanted);
    key && args.type_name.as_ref().is_none_or(fits)
}

struct Printer<'a> {
    codec: &'a Codec,
    out: Output,
    to: BufWriter<std::io::Stdout>,
}

impl Printer<'_> {
    fn print(&mut self, record: &Record) -> anyhow::Result<()> {
        let json = decoded::record(self.codec, record);
        let line = if self.out.json { json.to_string() } else { decoded::line(&json) };
        match writeln!(self.to, "{line}") {
            // `tail … | head` is a normal end.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            other => Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use events::envelope::Headers;

    use super::*;

    fn args(from_time: &str) -> Tail {
        Tail {
            topic: "order.events".into(),
            from_offset: None,
            from_time: Some(from_time.to_owned()),
            key: Some("7".to_owned()),
            type_name: Some("OrderPlaced".to_owned()),
            partition: None,
            follow: false,
            limit: None,
        }
    }

    #[test]
    fn a_start_is_a_time_or_so_long_ago() {
        let at = start(&args("2025-01-01T00:00:00Z")).unwrap();
        assert_eq!(at, Some(Start::Time(Timestamp(1_735_689_600_000))));
        let Some(Start::Time(ago)) = start(&args("10m")).unwrap() else { panic!("a time") };
        let distance = clock::wall().0 - ago.0;
        assert!((600_000..660_000).contains(&distance), "{distance}");
        assert!(start(&args("yesterday")).is_err());
    }

    #[test]
    fn a_type_is_named_short_or_in_full() {
        let record = |kind: &str, key: &str| Record {
            topic: "order.events".into(),
            partition: 0,
            offset: 0,
            timestamp: Timestamp(0),
            key: Some(key.as_bytes().to_vec()),
            value: None,
            headers: Headers::from_iter([(name::TYPE, kind)]),
        };
        let mut args = args("1m");
        assert!(wanted(&args, &record("orderlog.order.OrderPlaced", "7")));
        assert!(!wanted(&args, &record("orderlog.order.OrderPlaced", "8")));
        assert!(!wanted(&args, &record("orderlog.order.OrderExpired", "7")));
        args.type_name = Some("orderlog.order.OrderExpired".to_owned());
        assert!(wanted(&args, &record("orderlog.order.OrderExpired", "7")));
    }
}
