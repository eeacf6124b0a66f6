//! Two nodes and an echo service: `cargo run --example hello`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use receptor_quic::{Authority, Node};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ca = Authority::new("hello", 1)?;
    let bob = Node::builder("bob", ca.issue("bob", 1)?).listen("127.0.0.1:0").start().await?;
    let mut echo = bob.serve("echo")?;
    tokio::spawn(async move {
        while let Some(incoming) = echo.accept().await {
            let (mut send, mut recv) = incoming.stream.split();
            copy(&mut recv, &mut send).await?;
            send.shutdown().await?;
        }
        std::io::Result::Ok(())
    });

    let alice =
        Node::builder("alice", ca.issue("alice", 1)?).peer(bob.local_addrs()[0]).start().await?;
    alice.linked().await?;
    let mut stream = alice.open("bob", "echo").await?;
    stream.write_all(b"hello, mesh").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("{} echoed: {answer}", bob.id());
    Ok(())
}
