//! A batch as the engine runs it, without an engine: decode, load, decide, evolve, save, call; and the fold of its events.

use engine::service::{Decoded, EffectMark, Homes, Outcome, Service, Try};
use events::code::{CancelReason, GatewayResult, OperatorRefundReason};
use events::codec::Codec;
use events::id::{CommandId, EventId, OrderId};
use events::inventory::{InventoryEvent, StockReserved};
use events::order::{OrderCancelled, OrderEvent, OrderExpired};
use events::payment::{PaymentCommand, PaymentEvent, RecordGatewayResult, RefundPayment};
use events::record::Recorded;
use events::time::Timestamp;
use payment_svc::app::replay;
use payment_svc::processor::{Input, Payments};
use sqlx::PgConnection;

use crate::database;
use crate::gateway_stand::{EARLY, GatewayStand, PAY_BY, calling, usd};

const P: i32 = 0;
/// All keys are of partition 0.
pub(crate) const HOMES: Homes = Homes { partitions: 1 };

fn decode(service: &Payments, topic: &str, value: &[u8]) -> Option<Decoded<Input>> {
    service.decode(&Codec::numbered(), topic, value, EARLY).unwrap()
}

fn reserved_by(service: &Payments, order: i64, method: &str) -> Input {
    let event = InventoryEvent::from(StockReserved {
        order_id: OrderId(order),
        customer_id: "c-1".to_owned(),
        lines: Vec::new(),
        total: usd(198),
        pay_by: PAY_BY,
        payment_method: method.to_owned(),
    });
    let decoded = decode(service, InventoryEvent::TOPIC, &event.encode(&Codec::numbered()).unwrap()).unwrap();
    assert_eq!((decoded.key, decoded.command), (order, None));
    decoded.input
}

fn reserved(order: i64, method: &str) -> Input {
    reserved_by(&replay(), order, method)
}

fn order(event: impl Into<OrderEvent>) -> Option<Input> {
    let value = event.into().encode(&Codec::numbered()).unwrap();
    decode(&replay(), OrderEvent::TOPIC, &value).map(|decoded| decoded.input)
}

fn expired(order_id: i64) -> Input {
    let (order_id, customer_id) = (OrderId(order_id), "c-1".to_owned());
    let event = OrderExpired { order_id, version: 2, customer_id, lines: Vec::new(), total: usd(198), pay_by: PAY_BY };
    order(event).unwrap()
}

fn cancelled(order_id: i64, reason: CancelReason) -> Option<Input> {
    order(OrderCancelled {
        order_id: OrderId(order_id),
        version: 2,
        customer_id: "c-1".to_owned(),
        lines: Vec::new(),
        total: usd(198),
        reason,
        customer_reason: None,
        command_id: None,
        caller: None,
        key_hash: None,
        fingerprint: None,
    })
}

fn command(command: impl Into<PaymentCommand>) -> Input {
    let command = command.into();
    let value = command.encode(&Codec::numbered()).unwrap();
    let decoded = decode(&replay(), PaymentCommand::TOPIC, &value).unwrap();
    assert_eq!(decoded.key, command.order_id().0);
    assert!(decoded.command.is_some());
    decoded.input
}

fn callback(order: i64, id: i64, result: GatewayResult) -> Input {
    command(RecordGatewayResult {
        order_id: OrderId(order),
        gateway_event_id: format!("evt_{id}"),
        result,
        gateway_key: format!("charge:{order}"),
        amount: usd(198),
        occurred_at: EARLY,
        command_id: CommandId(id),
        caller: Some("gateway".to_owned()),
        key_hash: Some("aa".to_owned()),
        fingerprint: Some("bb".to_owned()),
    })
}

fn refund(order: i64, id: i64) -> Input {
    command(RefundPayment {
        order_id: OrderId(order),
        reason: OperatorRefundReason::Duplicate,
        command_id: CommandId(id),
        caller: Some("op".to_owned()),
        key_hash: Some("cc".to_owned()),
        fingerprint: Some("dd".to_owned()),
    })
}

/// One batch; returns its events as the log would have them, and the effects it asks for.
async fn batch_at(
    conn: &mut PgConnection,
    inputs: &[Input],
    sequence: i64,
    now: Timestamp,
) -> (Vec<Recorded<PaymentEvent>>, Vec<EffectMark>) {
    let service = replay();
    let wanted: Vec<&Input> = inputs.iter().collect();
    let mut states = service.load(conn, &wanted, &[]).await.unwrap();
    let mut log = Vec::new();
    for input in inputs {
        if let Some(event) = service.decide(&states, input, now).unwrap() {
            let sequence = sequence + i64::try_from(log.len()).unwrap();
            let recorded = Recorded { event, id: EventId(sequence + 500), sequence, at: now };
            service.evolve(&mut states, &recorded);
            log.push(recorded);
        }
    }
    service.save(conn, HOMES, &states).await.unwrap();
    (log, service.effects_set(&states))
}

async fn batch(
    conn: &mut PgConnection,
    inputs: &[Input],
    sequence: i64,
) -> (Vec<Recorded<PaymentEvent>>, Vec<EffectMark>) {
    batch_at(conn, inputs, sequence, EARLY).await
}

/// Reads and tries these effects as the engine does until each has its answer.
async fn perform(conn: &mut PgConnection, service: &Payments, marks: &[EffectMark]) -> Vec<Input> {
    let mut answers = Vec::new();
    for (_, request) in service.effects_read(conn, P, marks).await.unwrap() {
        for number in 1..=5 {
            let attempt = Try { number, may_have_called: number > 1, now: EARLY };
            match service.perform(&request, attempt).await {
                Outcome::Answer(answer) => {
                    answers.push(answer);
                    break;
                }
                Outcome::Pending { .. } => assert!(number < 5, "no answer to {request:?}"),
                other => panic!("{other:?}"),
            }
        }
    }
    answers
}

fn names(log: &[Recorded<PaymentEvent>]) -> Vec<&'static str> {
    log.iter().map(|recorded| recorded.event.short_name()).collect()
}

fn kinds(marks: &[EffectMark]) -> Vec<(i64, &'static str)> {
    marks.iter().map(|mark| (mark.key, mark.kind)).collect()
}

async fn rows(conn: &mut PgConnection) -> Vec<String> {
    let rows = "SELECT to_jsonb(t)::text FROM payments AS t ORDER BY order_id";
    let rows: Vec<(String,)> = sqlx::query_as(rows).fetch_all(conn).await.unwrap();
    rows.into_iter().map(|(row,)| row).collect()
}

#[tokio::test]
async fn later_inputs_of_a_batch_see_its_earlier_events() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let inputs = [
        reserved(1, "pm_ok"),
        callback(1, 10, GatewayResult::Captured),
        callback(1, 11, GatewayResult::Declined),
        expired(2),
        reserved(2, "pm_ok"),
        refund(1, 12),
        refund(1, 13),
    ];
    let (log, marks) = batch(&mut conn, &inputs, 1).await;
    let expected = [
        "PaymentRequested",
        "PaymentCaptured",
        "CommandRefused",
        "PaymentCancelled",
        "RefundRequested",
        "CommandRefused",
    ];
    assert_eq!(names(&log), expected);
    assert_eq!(kinds(&marks), [(1, "refund")], "only what is asked for in the end");
    let about = replay().about(&log[2].event);
    assert_eq!((about.key, about.correlation, about.refused.as_deref()), (1, Some(1), Some("ALREADY_CAPTURED")));
    assert_eq!(about.command.unwrap().command_id, CommandId(11));
    assert_eq!(replay().about(&log[0].event).command, None);
}

#[tokio::test]
async fn a_refused_command_does_not_make_a_call_look_as_if_it_had_never_been_made() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let (_, marks) = batch(&mut conn, &[reserved(1, "pm_ok")], 1).await;
    assert_eq!(kinds(&marks), [(1, "charge")]);
    let (log, again) = batch(&mut conn, &[refund(1, 10)], 2).await;
    assert_eq!((names(&log), again), (vec!["CommandRefused"], vec![]), "its charge may be on its way");
    assert_eq!(replay().effects_due(&mut conn, P).await.unwrap(), marks);
}

#[tokio::test]
async fn from_pay_by_on_a_reservation_asks_for_nothing() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let (log, marks) = batch_at(&mut conn, &[reserved(1, "pm_ok")], 1, PAY_BY).await;
    assert_eq!((names(&log), marks), (vec!["PaymentCancelled"], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_taken_and_given_back_through_the_gateway() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let gateway = GatewayStand::start().await;
    let inputs = [reserved(1, "pm_ok"), reserved(2, "pm_declined"), reserved(3, "pm_wrong_amount")];
    let (_, marks) = batch(&mut conn, &inputs, 1).await;
    assert_eq!(gateway.service.effects_due(&mut conn, P).await.unwrap(), marks, "found again at the next assignment");
    let answers = perform(&mut conn, &gateway.service, &marks).await;
    let (log, refunds) = batch(&mut conn, &answers, 4).await;
    assert_eq!(names(&log), ["PaymentCaptured", "PaymentDeclined", "PaymentDeclined"]);
    assert_eq!(kinds(&refunds), [(3, "refund")]);
    assert!(gateway.service.effects_read(&mut conn, P, &marks).await.unwrap().is_empty(), "answered, so not asked for");
    let answers = perform(&mut conn, &gateway.service, &refunds).await;
    let (log, more) = batch(&mut conn, &answers, 7).await;
    assert_eq!((names(&log), more), (vec!["PaymentRefunded"], vec![]));
    let refunded: Vec<_> = gateway.ledger("charges").await.iter().map(|charge| charge["refunded"].clone()).collect();
    assert_eq!(refunded, [0, 0, 199]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_given_up_costs_its_customer_nothing() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let gateway = GatewayStand::start().await;
    let (_, charges) = batch(&mut conn, &[reserved(1, "pm_never"), reserved(2, "pm_late")], 1).await;
    for (_, request) in gateway.service.effects_read(&mut conn, P, &charges).await.unwrap() {
        let first = Try { number: 1, may_have_called: false, now: EARLY };
        assert!(matches!(gateway.service.perform(&request, first).await, Outcome::Pending { .. }));
    }
    let ends = [cancelled(1, CancelReason::Customer).unwrap(), expired(2)];
    let (log, cancels) = batch(&mut conn, &ends, 3).await;
    assert_eq!(names(&log), ["PaymentCancelRequested", "PaymentCancelRequested"]);
    let answers = perform(&mut conn, &gateway.service, &cancels).await;
    let (log, refunds) = batch(&mut conn, &answers, 5).await;
    assert_eq!(names(&log), ["PaymentCancelled", "PaymentCaptured"]);
    let answers = perform(&mut conn, &gateway.service, &refunds).await;
    assert_eq!(names(&batch(&mut conn, &answers, 7).await.0), ["PaymentRefunded"]);
    let kept = gateway
        .ledger("charges")
        .await
        .iter()
        .filter(|charge| charge["status"] == "captured")
        .fold(0, |sum, charge| sum + charge["amount"].as_i64().unwrap() - charge["refunded"].as_i64().unwrap());
    assert_eq!(kept, 0);
}

#[tokio::test]
async fn a_hosted_page_is_written_into_the_event() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let service = calling("http://pay.test");
    let input = reserved_by(&service, 7, "pm_checkout");
    let states = service.load(&mut conn, &[&input], &[]).await.unwrap();
    let Some(PaymentEvent::PaymentRequested(event)) = service.decide(&states, &input, EARLY).unwrap() else {
        panic!("must be requested");
    };
    assert_eq!(event.pay_url.as_deref(), Some("http://pay.test/checkout/charge:7"));
}

#[tokio::test]
async fn the_fold_of_the_events_gives_the_live_rows() {
    let live = database::migrated().await;
    let mut live = live.acquire().await.unwrap();
    let methods = ["pm_ok", "pm_declined", "pm_failed", "pm_wrong_amount", "pm_never", "pm_late"];
    let inputs: Vec<Input> = (1..).zip(methods).map(|(order, method)| reserved(order, method)).collect();
    let (mut log, marks) = batch(&mut live, &inputs, 1).await;
    let answers = perform(&mut live, &replay(), &marks[..4]).await;
    log.extend(batch(&mut live, &answers, 7).await.0);
    let more = [expired(5), expired(6), expired(7), refund(1, 10), refund(1, 11), reserved(8, "pm_ok")];
    let (events, marks) = batch(&mut live, &more, 11).await;
    log.extend(events);
    let cancels: Vec<_> = marks.into_iter().filter(|mark| mark.kind == "cancel").collect();
    let answers = perform(&mut live, &replay(), &cancels).await;
    log.extend(batch(&mut live, &answers, 17).await.0);
    assert_eq!(log.len(), 18, "{:?}", names(&log));

    for size in [1, 4, 100] {
        let folded = database::migrated().await;
        let mut folded = folded.acquire().await.unwrap();
        for chunk in log.chunks(size) {
            let events: Vec<&PaymentEvent> = chunk.iter().map(|recorded| &recorded.event).collect();
            let mut states = replay().load(&mut folded, &[], &events).await.unwrap();
            chunk.iter().for_each(|recorded| replay().evolve(&mut states, recorded));
            replay().save(&mut folded, HOMES, &states).await.unwrap();
        }
        assert_eq!(rows(&mut folded).await, rows(&mut live).await, "in batches of {size}");
        let due = replay().effects_due(&mut folded, P).await.unwrap();
        assert_eq!(due, replay().effects_due(&mut live, P).await.unwrap(), "calls are rebuilt too");
        assert_eq!(kinds(&due), [(4, "refund"), (1, "refund"), (8, "charge"), (6, "refund")]);
    }
}

#[test]
fn what_moves_no_money_is_passed_over() {
    for reason in [CancelReason::OutOfStock, CancelReason::PaymentDeclined, CancelReason::PaymentFailed] {
        assert!(cancelled(1, reason).is_none(), "{reason}");
    }
}

#[test]
fn no_call_of_a_payment_can_be_given_up_by_an_operator() {
    for call in ["charge", "cancel", "refund"] {
        assert!(replay().discard_effect(1, call).is_none(), "only the gateway knows whether money moved");
    }
}
