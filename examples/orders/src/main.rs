//! Runs the shop, and the payment server that it needs.
//!
//! `orders payments ADDRESS LEDGER` runs the payment server alone; `ORDERS_PAYMENTS=ADDRESS orders` runs
//! the shop against one that runs elsewhere.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc,
    thread,
};

use orders::payments;

/// Where the payment server runs, if it runs elsewhere.
const ELSEWHERE: &str = "ORDERS_PAYMENTS";
/// Where the server that the shop starts keeps its ledger.
const LEDGER: &str = "data/payments.jsonl";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["payments", address, ledger] => serve(address, Path::new(ledger)),
        _ => shop(),
    };
    outcome.unwrap_or_else(|error| {
        // The program ends here, and says why.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("error: {error}\n").as_bytes());
        ExitCode::FAILURE
    })
}

type Outcome = Result<ExitCode, Box<dyn std::error::Error>>;

fn serve(address: &str, ledger: &Path) -> Outcome {
    let told = |address| {
        let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("payments at {address}\n").as_bytes());
    };
    payments::serve(address.parse()?, ledger, false, told)?;
    Ok(ExitCode::SUCCESS)
}

fn shop() -> Outcome {
    let address = match env::var(ELSEWHERE) {
        Ok(address) => address.parse().map_err(|error| format!("{ELSEWHERE}={address} is no address: {error}"))?,
        Err(_) => start_payments(LEDGER.into())?,
    };
    Ok(orders::app(payments::Client::new(address)).main())
}

/// Starts the payment server on a thread of its own; returns its address.
fn start_payments(ledger: PathBuf) -> Result<SocketAddr, Box<dyn std::error::Error>> {
    ledger.parent().map_or(Ok(()), fs::create_dir_all)?;
    let (teller, told) = mpsc::channel();
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    thread::spawn(move || {
        let address = teller.clone();
        let served = payments::serve(listen, &ledger, false, move |listens| _ = address.send(Ok(listens)));
        if let Err(error) = served {
            let _ = teller.send(Err(format!("the payment server with the ledger {}: {error}", ledger.display())));
        }
    });
    Ok(told.recv()??)
}
