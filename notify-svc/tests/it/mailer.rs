//! Notices that really leave, and what is made of servers that refuse, err, hang up or are not there.

use engine::breaker::{Breakers, State};
use events::code::{Channel, NoticeKind};
use events::id::OrderId;
use events::money::{Currency, Money};
use notify_svc::domain::Report;
use notify_svc::mailer::{Mailer, Parcel, Verdict};
use notify_svc::state::Letter;

use crate::sink::SinkStand;

const SENT: Verdict = Verdict::Final(Report::Sent);

fn to(channel: Channel) -> &'static str {
    match channel {
        Channel::Email => "ann@example.test",
        Channel::Sms => "+4930123456",
    }
}

async fn send(mailer: &Mailer, order: i64, channel: Channel) -> Verdict {
    let letter = Letter { total: Some(Money::new(198, Currency::USD)), ..Letter::default() };
    let order_id = OrderId(order);
    mailer.send(Parcel { order_id, kind: NoticeKind::OrderConfirmed, channel, letter: &letter, to: to(channel) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_arrives_with_its_order_and_message_id() {
    let sink = SinkStand::start().await;
    for channel in [Channel::Email, Channel::Sms] {
        assert_eq!(send(&sink.mailer, 1_082_185, channel).await, SENT);
    }
    let messages = sink.messages().await;
    for (message, channel) in messages.iter().zip([Channel::Email, Channel::Sms]) {
        assert_eq!(message["channel"], channel.as_str());
        assert_eq!(message["message_id"], format!("1082185.ORDER_CONFIRMED.{channel}@orderlog"));
        assert_eq!(message["to"], to(channel));
        assert!(message["body"].as_str().unwrap().contains("order 1082185 is confirmed"), "{message}");
    }
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0]["subject"], "Your order 1082185 is confirmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_notices_share_connections_and_none_is_lost() {
    let sink = SinkStand::start().await;
    let sending = (1..=60).map(|order| {
        let mailer = sink.mailer.clone();
        tokio::spawn(async move { send(&mailer, order, Channel::Email).await })
    });
    for sent in sending.collect::<Vec<_>>() {
        assert_eq!(sent.await.unwrap(), SENT);
    }
    let mut ids: Vec<String> = sink.messages().await.iter().map(|message| message["message_id"].to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_now_is_tried_again_and_one_for_good_is_final() {
    let sink = SinkStand::start().await;
    for (channel, for_now) in [(Channel::Email, "SMTP_TRANSIENT"), (Channel::Sms, "SMS_PROVIDER")] {
        sink.plan("reject_4xx", 1).await;
        let verdict = send(&sink.mailer, 1, channel).await;
        assert!(matches!(&verdict, Verdict::Failed { code, .. } if *code == for_now), "{verdict:?}");
        sink.plan("reject_5xx", 1).await;
        let verdict = send(&sink.mailer, 1, channel).await;
        let Verdict::Final(Report::Refused(code)) = &verdict else { panic!("{verdict:?}") };
        assert!(code.starts_with("SMTP_5") || code == "HTTP_422", "{code}");
        assert_eq!(send(&sink.mailer, 1, channel).await, SENT, "the plan is used up");
    }
    assert_eq!(sink.messages().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_up_was_not_reached_and_the_next_try_repeats_the_message_id() {
    let sink = SinkStand::start().await;
    for channel in [Channel::Email, Channel::Sms] {
        sink.plan("cut_answer", 1).await;
        let verdict = send(&sink.mailer, 1, channel).await;
        assert!(matches!(verdict, Verdict::Unreachable(_)), "no attempt is used up: {verdict:?}");
        assert_eq!(send(&sink.mailer, 1, channel).await, SENT);
    }
    let messages = sink.messages().await;
    assert_eq!(messages.len(), 4, "taken, the answer lost, and sent again");
    assert_eq!(messages[0]["message_id"], messages[1]["message_id"]);
    assert_eq!(messages[2]["message_id"], messages[3]["message_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_uses_up_no_attempt() {
    // Bound and given back: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mailer = Mailer::new(&format!("smtp://{free}"), &format!("http://{free}/sms")).unwrap();
    for channel in [Channel::Email, Channel::Sms] {
        let verdict = send(&mailer, 1, channel).await;
        assert!(matches!(verdict, Verdict::Unreachable(_)), "{verdict:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let mailer = Mailer::new(&format!("smtp://{address}"), &format!("http://{address}/sms")).unwrap();
    let began = std::time::Instant::now();
    let (mail, sms) = tokio::join!(send(&mailer, 1, Channel::Email), send(&mailer, 1, Channel::Sms));
    for verdict in [mail, sms] {
        assert!(matches!(verdict, Verdict::Unreachable(_)), "{verdict:?}");
    }
    assert!(began.elapsed().as_secs() < 30, "a try of an effect has 30 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_is_away_is_not_tried_and_the_other_one_goes_on() {
    let sink = SinkStand::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (smtp, breakers) = (format!("smtp://{free}"), Breakers::default());
    let mailer = Mailer::new(&smtp, &format!("{}/sms", sink.http)).unwrap().guarded(&smtp, &breakers).unwrap();
    let verdict = send(&mailer, 1, Channel::Email).await;
    assert!(matches!(verdict, Verdict::Unreachable(_)), "{verdict:?}");
    let away = testkit::eventually(std::time::Duration::from_secs(10), async || {
        breakers.away().pop().ok_or_else(|| breakers.dependencies())
    })
    .await;
    let waits = format!("waiting for the mail server at {free} since ");
    assert!(away.0.to_string().starts_with(&waits) && !away.1, "{away:?}");
    let Verdict::Unreachable(why) = send(&mailer, 2, Channel::Email).await else { panic!("it is away") };
    assert!(why.starts_with(&waits), "{why}");
    assert_eq!(send(&mailer, 1, Channel::Sms).await, SENT);
    // A server that errs is there.
    sink.plan("reject_4xx", 1).await;
    assert!(matches!(send(&mailer, 2, Channel::Sms).await, Verdict::Failed { .. }));
    assert_eq!(breakers.dependencies()[1].state, State::Closed);
}
