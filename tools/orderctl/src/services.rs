//! The four services: the only place in the tools that names them all, and gives each one's fold to generic work.
//!
//! A [`Job`] is written once, for any service; [`with`] runs it for the one that was named.

use std::fmt;

use clap::ValueEnum;
use engine::migrate::MigrationSet;
use engine::service::{Description, Service};

/// A service by its crate's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServiceName {
    #[value(name = "order-svc")]
    Order,
    #[value(name = "inventory-svc")]
    Inventory,
    #[value(name = "payment-svc")]
    Payment,
    #[value(name = "notify-svc")]
    Notify,
}

impl ServiceName {
    pub(crate) const ALL: [Self; 4] = [Self::Order, Self::Inventory, Self::Payment, Self::Notify];

    /// Crate name = consumer group.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order-svc",
            Self::Inventory => "inventory-svc",
            Self::Payment => "payment-svc",
            Self::Notify => "notify-svc",
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Work that is the same for every service.
pub(crate) trait Job {
    type Done;

    async fn run<S: Service>(self, service: S, migrations: &'static [MigrationSet]) -> anyhow::Result<Self::Done>;
}

/// Runs a job for a service.
pub(crate) async fn with<J: Job>(name: ServiceName, job: J) -> anyhow::Result<J::Done> {
    match name {
        ServiceName::Order => job.run(order_svc::app::replay(), order_svc::app::MIGRATIONS).await,
        ServiceName::Inventory => job.run(inventory_svc::app::replay(), inventory_svc::app::MIGRATIONS).await,
        ServiceName::Payment => job.run(payment_svc::app::replay(), payment_svc::app::MIGRATIONS).await,
        ServiceName::Notify => job.run(notify_svc::app::replay(), notify_svc::app::MIGRATIONS).await,
    }
}

/// The fixed facts of a service.
pub(crate) fn describe(name: ServiceName) -> Description {
    match name {
        ServiceName::Order => order_svc::app::replay().describe(),
        ServiceName::Inventory => inventory_svc::app::replay().describe(),
        ServiceName::Payment => payment_svc::app::replay().describe(),
        ServiceName::Notify => notify_svc::app::replay().describe(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_leads_to_its_service() {
        for name in ServiceName::ALL {
            assert_eq!(describe(name).name, name.as_str());
            assert_eq!(ServiceName::from_str(name.as_str(), false), Ok(name));
        }
    }
}
