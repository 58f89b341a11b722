//! A proxy that delays, holds back or loses what a server sends.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::Instant,
};

/// What the proxy does with what the server sends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mode {
    /// How much later it arrives.
    pub delay: Duration,
    /// Whether nothing is passed on until this is off.
    pub hold: bool,
    /// Whether invalidations are lost.
    pub cut: bool,
    /// Whether no request is passed on until this is off.
    pub hold_requests: bool,
}

struct Shared {
    upstream: Mutex<SocketAddr>,
    mode: watch::Sender<Mode>,
    /// Incremented to close all connections.
    closed: watch::Sender<u64>,
    /// Messages of the server's that were read: replies, and invalidations.
    replies: watch::Sender<u64>,
    pushes: watch::Sender<u64>,
}

/// A proxy in front of one server, or of another one later.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            upstream: Mutex::new(([127, 0, 0, 1], upstream).into()),
            mode: watch::Sender::new(Mode::default()),
            closed: watch::Sender::new(0),
            replies: watch::Sender::new(0),
            pushes: watch::Sender::new(0),
        });
        let mut tasks = JoinSet::new();
        let accepting = shared.clone();
        tasks.spawn(async move {
            // Ends, with all connections, when the proxy is dropped.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(serve(client, accepting.clone()));
            }
        });
        Self { address, shared, _tasks: tasks }
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    pub fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Closes all connections.
    pub fn close(&self) {
        self.shared.closed.send_modify(|count| *count += 1);
    }

    /// Serves another server, to those that connect from now on.
    pub fn move_to(&self, upstream: u16) {
        *self.shared.upstream.lock().unwrap() = ([127, 0, 0, 1], upstream).into();
        self.close();
    }

    pub fn replies(&self) -> u64 {
        *self.shared.replies.borrow()
    }

    /// Waits until the server has sent so many replies in all.
    pub async fn has_replies(&self, count: u64) {
        self.shared.replies.subscribe().wait_for(|seen| *seen >= count).await.unwrap();
    }

    /// Waits until the server has sent so many invalidations in all.
    pub async fn has_pushes(&self, count: u64) {
        self.shared.pushes.subscribe().wait_for(|seen| *seen >= count).await.unwrap();
    }
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let upstream = *shared.upstream.lock().unwrap();
    let mut closed = shared.closed.subscribe();
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (later, queue) = tokio::sync::mpsc::unbounded_channel();
    tokio::select! {
        () = requests(from_client, to_server, &shared) => {}
        () = read(from_server, later, &shared) => {}
        () = write(to_client, queue, &shared) => {}
        _ = closed.changed() => {}
    }
}

/// Passes on what the client sends.
async fn requests(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, shared: &Shared) {
    let mut mode = shared.mode.subscribe();
    let mut bytes = Vec::new();
    while let Ok(1..) = client.read_buf(&mut bytes).await {
        if mode.wait_for(|mode| !mode.hold_requests).await.is_err()
            || server.write_all(&bytes).await.is_err()
        {
            return;
        }
        bytes.clear();
    }
}

type Message = (Instant, Vec<u8>);

/// Reads messages of the server, and says when each has to arrive.
async fn read(
    mut server: OwnedReadHalf,
    later: tokio::sync::mpsc::UnboundedSender<Message>,
    shared: &Shared,
) {
    let mut bytes = Vec::new();
    while let Ok(1..) = server.read_buf(&mut bytes).await {
        while let Some(length) = message(&bytes) {
            let message: Vec<u8> = bytes.drain(..length).collect();
            let mode = *shared.mode.borrow();
            let is_push = message[0] == b'>';
            if !(is_push && mode.cut) {
                let _ = later.send((Instant::now() + mode.delay, message));
            }
            let count = if is_push { &shared.pushes } else { &shared.replies };
            count.send_modify(|count| *count += 1);
        }
    }
}

/// Passes messages on, in their order, all that are there in one write.
async fn write(
    mut client: OwnedWriteHalf,
    mut queue: tokio::sync::mpsc::UnboundedReceiver<Message>,
    shared: &Shared,
) {
    let mut mode = shared.mode.subscribe();
    while let Some((due, mut bytes)) = queue.recv().await {
        tokio::time::sleep_until(due).await;
        if mode.wait_for(|mode| !mode.hold).await.is_err() {
            return;
        }
        while shared.mode.borrow().delay.is_zero()
            && let Ok((_, more)) = queue.try_recv()
        {
            bytes.extend(more);
        }
        if client.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Returns the length of the RESP3 message that some bytes begin with; `None` if it is not complete.
fn message(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|end| end == b"\r\n")?;
    let head = line + 2;
    let count = || std::str::from_utf8(&bytes[1..line]).ok()?.parse::<i64>().ok();
    let parts = match bytes[0] {
        b'$' | b'=' | b'!' => {
            let length = count()?;
            let end = if length < 0 { head } else { head + length as usize + 2 };
            return (bytes.len() >= end).then_some(end);
        }
        b'*' | b'~' | b'>' => count()?.max(0),
        b'%' => 2 * count()?,
        // The message itself follows its attributes.
        b'|' => 2 * count()? + 1,
        _ => 0,
    };
    (0..parts).try_fold(head, |end, _| {
        Some(end + message(bytes.get(end..).filter(|rest| !rest.is_empty())?)?)
    })
}
