//! The command line of the dead-letter desk.

use clap::{Args, Subcommand};
use engine::desk::Address;

use crate::services::ServiceName;

#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// What dead letters fail of; with a choice, the letters themselves
    List {
        /// Whose; all four by default
        service: Option<ServiceName>,
        /// Only the letters of this group
        #[arg(long, requires = "service")]
        group: Option<String>,
        /// Only the letters of this key
        #[arg(long, requires = "service", conflicts_with = "group")]
        key: Option<i64>,
        /// At most so many letters
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Everything about one held or dead record, or dead effect
    Show {
        /// Whose
        service: ServiceName,
        /// TOPIC/PARTITION/OFFSET, for an effect with /EFFECT behind it, as lists show it
        #[arg(value_parser = place)]
        record: Address,
    },
    /// Try records again; each goes before what waits behind it. An effect is called once more
    Redrive {
        #[command(flatten)]
        what: Chosen,
        /// Only show what would come of it, in transactions that are rolled back. Nothing is called
        #[arg(long)]
        dry_run: bool,
        /// Begin with 1, then 2, 5, 20 and more, and stop when too many die again
        #[arg(long, conflicts_with = "dry_run")]
        ramp: bool,
        /// With --ramp: stop when more than this share of a step dies again
        #[arg(long, default_value_t = 0.1, requires = "ramp")]
        relapses: f64,
    },
    /// Settle records without applying them; a command is refused, a notice is not sent
    Discard {
        #[command(flatten)]
        what: Chosen,
    },
}

/// Which records, and why.
#[derive(Debug, Args)]
pub(crate) struct Chosen {
    /// Whose
    pub(crate) service: ServiceName,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Why: kept with what is done
    #[arg(long)]
    pub(crate) reason: String,
    /// Who wants it: kept with what is done
    #[arg(long, env = "ORDERLOG_OPERATOR", default_value = "orderctl")]
    pub(crate) operator: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// Every dead letter
    #[arg(long)]
    pub(crate) all: bool,
    /// The letters of this group
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// The letters of this key
    #[arg(long)]
    pub(crate) key: Option<i64>,
    /// One held or dead record, TOPIC/PARTITION/OFFSET; a dead effect, TOPIC/PARTITION/OFFSET/EFFECT
    #[arg(long, value_parser = place)]
    pub(crate) record: Option<Address>,
}

fn place(text: &str) -> Result<Address, String> {
    let wrong =
        || "must be TOPIC/PARTITION/OFFSET or TOPIC/PARTITION/OFFSET/EFFECT, such as order.events/3/42".to_owned();
    let parts: Vec<&str> = text.split('/').collect();
    let (topic, partition, offset, effect) = match parts[..] {
        [topic, partition, offset] => (topic, partition, offset, None),
        [topic, partition, offset, effect] if !effect.is_empty() => (topic, partition, offset, Some(effect.to_owned())),
        _ => return Err(wrong()),
    };
    let (Ok(partition), Ok(offset)) = (partition.parse(), offset.parse()) else { return Err(wrong()) };
    Ok(Address { topic: topic.to_owned(), partition, offset, effect })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_topic_partition_and_offset() {
        let address = Address { topic: "t1.order.events".to_owned(), partition: 3, offset: 42, effect: None };
        assert_eq!(place("t1.order.events/3/42"), Ok(address.clone()));
        let effect = Address { effect: Some("ORDER_CONFIRMED.EMAIL".to_owned()), ..address };
        assert_eq!(place("t1.order.events/3/42/ORDER_CONFIRMED.EMAIL"), Ok(effect));
        let no_offset = ["order.events/3", "order.events/x/1", "order.events/3/x", "order.events/3/x/charge"];
        for wrong in ["", "order.events", "order.events/3/1/", "order.events/3/1/a/b"].into_iter().chain(no_offset) {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
