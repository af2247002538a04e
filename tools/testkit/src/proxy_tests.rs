//! Each fault of the proxy on real sockets.

use std::io::ErrorKind;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::eventually;

const SOON: Duration = Duration::from_secs(5);
const MOMENT: Duration = Duration::from_millis(60);

/// A server that answers with what it was sent; when the client has said its last it says `bye`.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut bytes = vec![0; 1024];
                while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                    stream.write_all(&bytes[..length]).await.unwrap();
                }
                drop(stream.write_all(b"bye").await);
            });
        }
    });
    address
}

async fn proxied() -> (Proxy, TcpStream) {
    let proxy = Proxy::of(&echo().await).await.unwrap();
    let client = TcpStream::connect(proxy.address()).await.unwrap();
    (proxy, client)
}

async fn say(client: &mut TcpStream, what: &str) -> std::io::Result<String> {
    client.write_all(what.as_bytes()).await?;
    heard(client, what.len()).await
}

async fn heard(client: &mut TcpStream, length: usize) -> std::io::Result<String> {
    let mut bytes = vec![0; length];
    client.read_exact(&mut bytes).await?;
    Ok(String::from_utf8(bytes).unwrap())
}

async fn nothing_comes(client: &mut TcpStream) {
    assert!(tokio::time::timeout(MOMENT, client.read_u8()).await.is_err(), "something came");
}

#[tokio::test]
async fn bytes_and_last_words_pass() {
    let (proxy, mut client) = proxied().await;
    assert_eq!(say(&mut client, "hello").await.unwrap(), "hello");
    client.shutdown().await.unwrap();
    assert_eq!(heard(&mut client, 3).await.unwrap(), "bye");
    assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(proxy.counts(), Counts { connected: 1, ..Counts::default() });
}

#[tokio::test]
async fn what_is_held_passes_later_and_nobody_is_told() {
    for up in [true, false] {
        let (proxy, mut client) = proxied().await;
        proxy.change(|faults| if up { faults.up.hold = true } else { faults.down.hold = true });
        client.write_all(b"hello").await.unwrap();
        nothing_comes(&mut client).await;
        assert_eq!(proxy.counts().held, 1);
        proxy.heal();
        assert_eq!(heard(&mut client, 5).await.unwrap(), "hello");
    }
}

#[tokio::test]
async fn the_last_word_is_held_too() {
    let (proxy, mut client) = proxied().await;
    assert_eq!(say(&mut client, "hello").await.unwrap(), "hello");
    proxy.change(|faults| faults.up.hold = true);
    client.shutdown().await.unwrap();
    nothing_comes(&mut client).await;
    proxy.heal();
    assert_eq!(heard(&mut client, 3).await.unwrap(), "bye");
}

#[tokio::test]
async fn a_delay_is_kept_and_order_too() {
    let (proxy, mut client) = proxied().await;
    let (delay, jitter) = (Duration::from_millis(40), Duration::from_millis(20));
    proxy.change(|faults| faults.up = Way { delay, jitter, ..Way::default() });
    let started = Instant::now();
    for piece in ["a", "b", "c"] {
        client.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(heard(&mut client, 3).await.unwrap(), "abc");
    assert!(started.elapsed() >= delay - jitter, "{:?}", started.elapsed());
    assert!(proxy.counts().delayed >= 1);
}

#[tokio::test]
async fn a_limited_link_takes_its_time() {
    let (proxy, mut client) = proxied().await;
    proxy.change(|faults| faults.up.bytes_per_s = NonZeroU32::new(10_000));
    let (started, text) = (Instant::now(), "x".repeat(1_000));
    assert_eq!(say(&mut client, &text).await.unwrap(), text);
    assert!(started.elapsed() >= Duration::from_millis(100), "{:?}", started.elapsed());
}

#[tokio::test]
async fn sliced_bytes_arrive_whole() {
    let (proxy, mut client) = proxied().await;
    proxy.change(|faults| faults.up.slice = NonZeroUsize::new(3));
    assert_eq!(say(&mut client, "0123456789").await.unwrap(), "0123456789");
}

#[tokio::test]
async fn connections_are_reset_and_new_ones_made() {
    let (proxy, mut client) = proxied().await;
    assert_eq!(say(&mut client, "hello").await.unwrap(), "hello");
    proxy.reset();
    assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut next = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(say(&mut next, "hello").await.unwrap(), "hello");
    assert_eq!(proxy.counts().reset, 1);
}

#[tokio::test]
async fn each_new_connection_is_reset_while_the_old_one_lasts() {
    let (proxy, mut client) = proxied().await;
    assert_eq!(say(&mut client, "hello").await.unwrap(), "hello");
    proxy.change(|faults| faults.refuse = true);
    let mut next = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(say(&mut next, "hello").await.is_err());
    assert_eq!(say(&mut client, "hello").await.unwrap(), "hello");
    proxy.down();
    assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.up();
    let mut next = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(say(&mut next, "hello").await.unwrap(), "hello");
    assert_eq!(proxy.counts().refused, 1);
}

#[tokio::test]
async fn a_half_closed_connection_still_takes_what_is_sent() {
    let (proxy, mut client) = proxied().await;
    assert_eq!(say(&mut client, "hello").await.unwrap(), "hello");
    proxy.half_close();
    assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    proxy.lose_reply_to(b"still here");
    client.write_all(b"still here").await.unwrap();
    // The trap sees what passes to the server; its reply is what the client does not get.
    eventually(SOON, async || if proxy.counts().lost == 1 { Ok(()) } else { Err(proxy.counts()) }).await;
    assert_eq!(proxy.counts().half_closed, 1);
}

#[tokio::test]
async fn the_reply_to_a_marked_commit_is_lost() {
    let (proxy, mut client) = proxied().await;
    proxy.lose_commit_of("marked");
    assert_eq!(say(&mut client, "plain; COMMIT\0").await.unwrap(), "plain; COMMIT\0");
    // Across the border of two pieces.
    assert_eq!(say(&mut client, "mar").await.unwrap(), "mar");
    assert_eq!(say(&mut client, "ked; COM").await.unwrap(), "ked; COM");
    client.write_all(b"MIT\0").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.counts().lost, 1);
    let mut next = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(say(&mut next, "marked; COMMIT\0").await.unwrap(), "marked; COMMIT\0");
}

#[tokio::test]
async fn answers_of_a_broker_name_the_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = listener.local_addr().unwrap();
    let proxy = Proxy::of_kafka(&there.to_string()).await.unwrap();
    let named = |port: u16| [&b"\x0a127.0.0.1"[..], &u32::from(port).to_be_bytes()].concat();
    let answer = [&vec![7; 9_000][..], &named(there.port())].concat();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for answer in [&named(there.port()), &answer] {
            stream.write_u32(u32::try_from(answer.len()).unwrap()).await.unwrap();
            stream.write_all(answer).await.unwrap();
        }
    });
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let here = named(proxy.0.here.port());
    for length in [here.len(), 9_000 + here.len()] {
        assert_eq!(client.read_u32().await.unwrap() as usize, length);
        let mut bytes = vec![0; length];
        client.read_exact(&mut bytes).await.unwrap();
        assert!(bytes.ends_with(&here));
    }
}

#[tokio::test]
async fn a_url_leads_to_the_proxy() {
    let proxy = Proxy::of_url("postgres://u:p@127.0.0.1:5432/db?x=1").await.unwrap();
    let expected = format!("postgres://u:p@{}/db?x=1", proxy.address());
    assert_eq!(proxy.url("postgres://u:p@127.0.0.1:5432/db?x=1"), expected);
    assert_eq!(proxy.url("http://127.0.0.1:5432"), format!("http://{}", proxy.address()));
}
