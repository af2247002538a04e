//! The gateway of the model: takes money, loses answers, calls back early, late and twice.

use events::code::GatewayResult;
use events::id::{CommandId, OrderId};
use events::money::Money;
use events::payment::RecordGatewayResult;
use payment_svc::domain as payment;
use rand::RngExt;

use crate::World;

impl World {
    /// One open call of some payment: made, answered, or made and its answer lost.
    pub(super) fn call_the_gateway(&mut self) {
        let open: Vec<(OrderId, payment::Call, Money)> = self
            .payments
            .iter()
            .filter_map(|(id, state)| {
                let (call, _) = state.call()?;
                Some((*id, call, state.taken().or(state.payment().map(|payment| payment.total))?))
            })
            .collect();
        if open.is_empty() {
            return;
        }
        let (order_id, call, amount) = open[self.random.random_range(0..open.len())];
        let report = match call {
            payment::Call::Charge => self.charge(order_id, amount),
            payment::Call::Cancel => {
                let charge = self.charges.entry(order_id).or_default();
                charge.cancelled = charge.captured == 0;
                let taken = Money { amount: charge.captured, ..amount };
                Some(if charge.cancelled { payment::Report::Cancelled } else { payment::Report::Captured(taken) })
            }
            payment::Call::Refund => {
                let charge = self.charges.entry(order_id).or_default();
                charge.refunded = charge.captured;
                Some(payment::Report::Refunded(Money { amount: charge.captured, ..amount }))
            }
        };
        // A crash before the answer is committed: the call was made all the same.
        if let Some(report) = report
            && !self.chance(20)
        {
            self.judge_payment(&payment::Input::Answer { order_id, report }, true);
        }
    }

    fn charge(&mut self, order_id: OrderId, amount: Money) -> Option<payment::Report> {
        let verdict = match self.random.random_range(0..10) {
            0 => GatewayResult::Declined,
            1 => GatewayResult::Failed,
            _ => GatewayResult::Captured,
        };
        let wrong = self.chance(5);
        let silent = self.chance(30);
        let charge = self.charges.entry(order_id).or_default();
        charge.called += 1;
        if charge.cancelled {
            return Some(payment::Report::Cancelled);
        }
        if charge.verdict.is_none() {
            charge.verdict = Some(verdict);
            if verdict == GatewayResult::Captured {
                charge.captured = amount.amount + i64::from(wrong);
            }
        }
        let (verdict, taken) = (charge.verdict?, Money { amount: charge.captured, ..amount });
        self.callbacks(order_id, verdict, taken);
        if silent {
            return None;
        }
        Some(match verdict {
            GatewayResult::Captured => payment::Report::Captured(taken),
            GatewayResult::Declined => payment::Report::Declined,
            GatewayResult::Failed | GatewayResult::Cancelled | GatewayResult::Refunded => payment::Report::Failed,
        })
    }

    /// None, one or two callbacks, under command IDs of their own.
    fn callbacks(&mut self, order_id: OrderId, result: GatewayResult, amount: Money) {
        for _ in 0..self.random.random_range(0..3) {
            let command = RecordGatewayResult {
                order_id,
                gateway_event_id: "e".to_owned(),
                result,
                gateway_key: payment::charge_key(order_id),
                amount,
                occurred_at: self.now,
                command_id: CommandId(self.id()),
                caller: None,
                key_hash: None,
                fingerprint: None,
            };
            self.payment_commands.push(command.into());
        }
    }
}
