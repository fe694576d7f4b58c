//! The server: its limits, and its thread.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    sync::mpsc::channel,
    thread::JoinHandle,
    time::Duration,
};

use actix_web::{App, FromRequest, Handler, HttpServer, Responder, dev::ServerHandle, rt::System, web};

use crate::{
    admin::Subject,
    edge::{BODY_BYTES_MAX, Edge, handle},
};

/// How long open connections may take to end once the server is to stop, in seconds.
const STOP_SECONDS_MAX: u64 = 5;

/// The limits of a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// The largest body, in bytes; at most `limits::MESSAGE_BYTES_MAX`.
    pub body_bytes_max: usize,
    /// How many connections may be open at a time; others wait until they are accepted.
    pub connections_max: usize,
    /// How long the head of a request may take to come.
    pub head_time_max: Duration,
    /// How long a body may take to come.
    pub body_time_max: Duration,
    /// How long an idle connection is kept.
    pub idle_time_max: Duration,
    /// How long a client waits for an answer before it is told that the outcome is unknown.
    pub answer_time_max: Duration,
    /// How many threads serve connections.
    pub threads: usize,
    /// The share of requests without a `traceparent` that begin a trace, 0 to 1.
    pub trace_share: f64,
    /// The field of a JSON body that states its event time, if there is one.
    pub event_time_field: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            body_bytes_max: 1024 * 1024,
            connections_max: 10_000,
            head_time_max: Duration::from_secs(5),
            body_time_max: Duration::from_secs(10),
            idle_time_max: Duration::from_secs(30),
            answer_time_max: Duration::from_secs(30),
            threads: 1,
            trace_share: 0.0,
            event_time_field: None,
        }
    }
}

/// A server that runs on threads of its own.
pub struct Server {
    address: SocketAddr,
    handle: ServerHandle,
    thread: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Starts a server at an address; port 0 is one that is free.
    ///
    /// # Errors
    /// If nobody can listen there, or a limit is not one that can be kept.
    pub fn start(listen: SocketAddr, options: Options, subject: Subject) -> io::Result<Self> {
        check(&options)?;
        let edge = web::Data::new(Edge { subject, options });
        let limits = edge.options.clone();
        Self::run("statefn-http", listen, move |listener| serve(listener, &limits, edge, handle))
    }

    /// Starts a thread that serves; `server` makes its server.
    pub(crate) fn run(
        name: &str,
        listen: SocketAddr,
        server: impl FnOnce(TcpListener) -> io::Result<actix_web::dev::Server> + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let address = listener.local_addr()?;
        let (sender, receiver) = channel();
        let run = move || {
            System::new().block_on(async move {
                let server = server(listener);
                let server = match server {
                    Ok(server) => server,
                    Err(error) => {
                        // The one who starts it is told that the channel ended.
                        drop(sender);
                        return Err(error);
                    }
                };
                // The one who starts it waits for this.
                let _ = sender.send(server.handle());
                server.await
            })
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(run)?;
        match receiver.recv() {
            Ok(handle) => Ok(Self { address, handle, thread }),
            Err(_) => {
                Err(thread.join().ok().and_then(Result::err).unwrap_or_else(|| io::Error::other("it did not start")))
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets open requests end, and waits for that.
    pub fn stop(self) {
        // What is told to it is on its way when the call returns; the thread ends when it is done.
        drop(self.handle.stop(true));
        // A server that panicked has ended as well.
        let _ = self.thread.join();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.address)
    }
}

pub(crate) fn check(options: &Options) -> io::Result<()> {
    let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if !(1..=BODY_BYTES_MAX).contains(&options.body_bytes_max) {
        return wrong(format!("`body_bytes_max` is {}: it must be 1 to {BODY_BYTES_MAX}", options.body_bytes_max));
    }
    if options.connections_max == 0 || options.threads == 0 {
        return wrong("`connections_max` and `threads` must be more than 0".into());
    }
    Ok(())
}

/// A server that answers every request by `handler`, which is given `data`.
pub(crate) fn serve<D, H, A>(
    listener: TcpListener,
    options: &Options,
    data: web::Data<D>,
    handler: H,
) -> io::Result<actix_web::dev::Server>
where
    D: Send + Sync + 'static,
    A: FromRequest + 'static,
    H: Handler<A> + Send,
    H::Output: Responder + 'static,
{
    let app = move || App::new().app_data(data.clone()).default_service(web::to(handler.clone()));
    let server = HttpServer::new(app)
        .workers(options.threads)
        .max_connections(options.connections_max.div_ceil(options.threads))
        .client_request_timeout(options.head_time_max)
        .client_disconnect_timeout(options.head_time_max)
        .keep_alive(options.idle_time_max)
        .shutdown_timeout(STOP_SECONDS_MAX)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}
