//! Starts the server that its argument names, says where it is, and dies without cleaning up.
//!
//! A test runs it to see that a server ends with the process that started it.

use std::{
    env,
    error::Error,
    io::{self, Write},
    process,
};

use services::{kafka::Broker, s3::Server};

fn main() -> Result<(), Box<dyn Error>> {
    let name = env::args().nth(1);
    let (broker, server);
    let (id, directory) = match name.as_deref() {
        Some("kafka") => {
            broker = Broker::start()?;
            (broker.process_id(), broker.directory().to_owned())
        }
        Some("s3") => {
            server = Server::start()?;
            (server.process_id(), server.directory())
        }
        _ => return Err("name a server: kafka or s3".into()),
    };
    let id = id.ok_or("it does not run")?;
    writeln!(io::stdout().lock(), "{id} {}", directory.display())?;
    process::abort()
}
