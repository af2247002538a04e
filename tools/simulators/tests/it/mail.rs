//! Mail into the sink: by lettre, as notify-svc sends it, and byte by byte where lettre cannot misbehave.

use std::time::{Duration, Instant};

use lettre::AsyncTransport;
use lettre::message::Message;
use lettre::message::header::ContentType;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::sink_stand::SinkStand;

fn notice(order: u64) -> Message {
    Message::builder()
        .message_id(Some(format!("<{order}.ORDER_CONFIRMED.EMAIL@orderlog>")))
        .from("shop@example.test".parse().unwrap())
        .to("Household 7 <household-7@example.test>".parse().unwrap())
        .subject("Your order is confirmed ✓")
        .header(ContentType::TEXT_PLAIN)
        .body(format!("Order {order} is confirmed.\n.a line with a dot\nGrüße\n"))
        .unwrap()
}

#[actix_web::test]
async fn a_notice_arrives_whole() {
    let (sink, _dir) = SinkStand::fresh().await;
    let mailer = sink.mailer();
    mailer.send(notice(4711)).await.unwrap();
    mailer.send(notice(4711)).await.unwrap();
    mailer.send(notice(47110)).await.unwrap();
    let found = sink.messages("?order=4711").await;
    assert_eq!(found.len(), 2);
    let message = &found[0];
    assert_eq!(message["message_id"], "4711.ORDER_CONFIRMED.EMAIL@orderlog");
    assert_eq!(message["channel"], "EMAIL");
    assert_eq!(message["to"], "household-7@example.test");
    assert_eq!(message["subject"], "Your order is confirmed ✓");
    assert_eq!(message["body"].as_str().unwrap().trim_end(), "Order 4711 is confirmed.\n.a line with a dot\nGrüße");
    assert!(message["at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(sink.messages("").await.len(), 3);
}

#[actix_web::test]
async fn many_at_once_all_arrive_and_survive_a_restart() {
    let (sink, dir) = SinkStand::fresh().await;
    let mailer = sink.mailer();
    let sent = futures_util::future::join_all((0..100).map(|n| mailer.send(notice(1_000 + n)))).await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    let before = sink.messages("?limit=200").await;
    assert_eq!(before.len(), 100);
    sink.stop().await;
    let sink = SinkStand::start(dir.path()).await;
    assert_eq!(sink.messages("?limit=200").await, before);
    assert_eq!(sink.messages("?order=1042").await.len(), 1);
}

#[actix_web::test]
async fn plans_reject_close_delay_and_cut() {
    let (sink, _dir) = SinkStand::fresh().await;
    let mailer = sink.mailer();
    let plan = async |plan| sink.api.plan(plan).await;
    plan(json!({"mode": "reject_4xx", "count": 1})).await;
    assert!(mailer.send(notice(1)).await.unwrap_err().is_transient());
    plan(json!({"mode": "reject_5xx", "count": 1, "keys": ["household-7@example.test"]})).await;
    assert!(mailer.send(notice(1)).await.unwrap_err().is_permanent());
    plan(json!({"mode": "down"})).await;
    assert!(mailer.send(notice(1)).await.is_err());
    assert!(sink.mailer().send(notice(1)).await.is_err());
    assert!(sink.messages("").await.is_empty());
    plan(json!({"mode": "cut_answer", "count": 1})).await;
    assert!(sink.mailer().send(notice(2)).await.is_err());
    assert_eq!(sink.messages("?order=2").await.len(), 1);
    plan(json!({"mode": "slow", "count": 1, "delay_ms": 300})).await;
    let started = Instant::now();
    sink.mailer().send(notice(3)).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(300));
    sink.mailer().send(notice(4)).await.unwrap();
}

/// A client that writes what it likes.
struct Raw(BufReader<TcpStream>);

impl Raw {
    async fn open(sink: &SinkStand) -> Self {
        let mut raw = Self(BufReader::new(TcpStream::connect(("127.0.0.1", sink.smtp_port)).await.unwrap()));
        assert_eq!(raw.code().await, "220");
        raw
    }

    async fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).await.unwrap();
    }

    /// The code of the next reply, of which only the last line counts; empty when the sink has hung up.
    async fn code(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.unwrap();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.chars().take(3).collect();
            }
        }
    }

    async fn ask(&mut self, text: &str) -> String {
        self.say(text).await;
        self.code().await
    }
}

#[actix_web::test]
async fn pipelined_commands_and_data_are_taken_in_one_write() {
    let (sink, _dir) = SinkStand::fresh().await;
    let mut client = Raw::open(&sink).await;
    assert_eq!(client.ask("EHLO me\r\n").await, "250");
    client
        .say(
            "MAIL FROM:<a@example.test>\r\nRCPT TO:<b@example.test>\r\nRCPT TO:<c@example.test>\r\nDATA\r\n\
             Subject: one\r\n\r\n..order 5\r\n.\r\nNOOP\r\nQUIT\r\n",
        )
        .await;
    for code in ["250", "250", "250", "354", "250", "250", "221", ""] {
        assert_eq!(client.code().await, code);
    }
    let messages = sink.messages("?order=5").await;
    let to: Vec<_> = messages.iter().map(|message| message["to"].as_str().unwrap()).collect();
    assert_eq!(to, ["b@example.test", "c@example.test"]);
    assert_eq!(messages[0]["body"], ".order 5\n");
    assert_eq!(messages[0]["message_id"], json!(null));
}

#[actix_web::test]
async fn commands_out_of_order_are_refused() {
    let (sink, _dir) = SinkStand::fresh().await;
    let mut client = Raw::open(&sink).await;
    assert_eq!(client.ask("MAIL FROM:<a@example.test>\r\n").await, "503");
    assert_eq!(client.ask("HELO me\r\n").await, "250");
    assert_eq!(client.ask("RCPT TO:<b@example.test>\r\n").await, "503");
    assert_eq!(client.ask("DATA\r\n").await, "503");
    assert_eq!(client.ask("MAIL FROM:<a@example.test> SIZE=9999999\r\n").await, "552");
    assert_eq!(client.ask("MAIL FROM:<>\r\n").await, "250");
    assert_eq!(client.ask("DATA\r\n").await, "503");
    assert_eq!(client.ask("RSET\r\n").await, "250");
    assert_eq!(client.ask("RCPT TO:<b@example.test>\r\n").await, "503");
    assert_eq!(client.ask("STARTTLS\r\n").await, "502");
    assert_eq!(client.ask("GARBAGE\r\n").await, "500");
    assert_eq!(client.ask("QUIT\r\n").await, "221");
}

#[actix_web::test]
async fn too_long_too_large_and_too_wrong_have_an_end() {
    let (sink, _dir) = SinkStand::fresh().await;
    let mut client = Raw::open(&sink).await;
    assert_eq!(client.ask(&format!("NOOP {}\r\n", "x".repeat(20_000))).await, "500");
    let mut client = Raw::open(&sink).await;
    client.ask("EHLO me\r\n").await;
    client.ask("MAIL FROM:<a@example.test>\r\n").await;
    client.ask("RCPT TO:<b@example.test>\r\n").await;
    assert_eq!(client.ask("DATA\r\n").await, "354");
    let large = format!("Subject: x\r\n\r\n{}.\r\n", format!("{}\r\n", "y".repeat(998)).repeat(1_100));
    assert_eq!(client.ask(&large).await, "552");
    let mut codes = Vec::new();
    for _ in 0..11 {
        codes.push(client.ask("NONSENSE\r\n").await);
        if codes.last().is_some_and(|code| code == "421") {
            break;
        }
    }
    assert!(codes.len() <= 11 && sink.messages("").await.is_empty(), "{codes:?}");
}
