//! Typed calls over serde: `cargo run --example rpc`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use receptor_quic::{Authority, HandlerError, Node, NodeId};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Quote {
    symbol: String,
    shares: u32,
}

#[derive(Serialize, Deserialize)]
struct Price {
    cents: u64,
}

async fn quote(caller: NodeId, quote: Quote) -> Result<Price, HandlerError> {
    match quote.symbol.as_str() {
        "ACME" => Ok(Price { cents: 1_250 * u64::from(quote.shares) }),
        // The caller gets the text; `?` converts any error.
        unknown => {
            Err(HandlerError::new(format!("{caller} asked for {unknown}, which is not listed")))
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ca = Authority::new("rpc", 1)?;
    let exchange =
        Node::builder("exchange", ca.issue("exchange", 1)?).listen("127.0.0.1:0").start().await?;
    exchange.serve_rpc("market:quote", quote)?;

    let trader = Node::builder("trader", ca.issue("trader", 1)?).peer(exchange.local_addrs()[0]);
    let trader = trader.start().await?;
    trader.linked().await?;
    for symbol in ["ACME", "NOPE"] {
        let request = Quote { symbol: symbol.to_owned(), shares: 4 };
        match trader.rpc::<_, Price>("exchange", "market:quote", &request).await {
            Ok(price) => println!("{symbol}: {} cents", price.cents),
            Err(error) => println!("{symbol}: {error}"),
        }
    }
    Ok(())
}
