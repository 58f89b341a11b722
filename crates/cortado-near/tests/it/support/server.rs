//! A server of its own for each test.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use redis::{Client, FromRedisValue, aio::MultiplexedConnection};

/// What the server's program may be called.
const PROGRAMS: [&str; 2] = ["valkey-server", "redis-server"];
/// How long a server may take to start.
const START: Duration = Duration::from_secs(20);

static DIRECTORIES: AtomicU32 = AtomicU32::new(0);

/// A running server, killed when it is dropped.
pub struct Server {
    child: Child,
    arguments: Vec<String>,
    directory: PathBuf,
    port: u16,
}

impl Server {
    /// Starts a server on a free port; `None` where none is installed.
    pub async fn start(arguments: &[&str]) -> Option<Self> {
        let id = DIRECTORIES.fetch_add(1, Relaxed);
        let directory = std::env::temp_dir().join(format!("near-{}-{id}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for the server");
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        for _ in 0..5 {
            let Ok(free) = TcpListener::bind("127.0.0.1:0") else { continue };
            let port = free.local_addr().expect("an address").port();
            drop(free);
            let Some(child) = spawn(port, &directory, &arguments) else {
                println!("SKIPPED: neither valkey-server nor redis-server is installed");
                return None;
            };
            let arguments = arguments.clone();
            let mut server = Self { child, arguments, directory: directory.clone(), port };
            // Another program may have taken the port.
            if server.is_ready().await {
                return Some(server);
            }
        }
        panic!("the server does not start");
    }

    async fn is_ready(&mut self) -> bool {
        let end = Instant::now() + START;
        while Instant::now() < end {
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            let ping = async { self.try_connect().await?.ping::<()>().await };
            use redis::AsyncCommands;
            if matches!(tokio::time::timeout(Duration::from_secs(1), ping).await, Ok(Ok(()))) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    async fn try_connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        Client::open(self.url())?.get_multiplexed_async_connection().await
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes a connection past the near cache.
    pub async fn direct(&self) -> MultiplexedConnection {
        self.try_connect().await.expect("the server is up")
    }

    /// Sends a command past the near cache.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.direct().await;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await.unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    pub async fn set(&self, key: u64, value: u64) {
        self.command::<()>(&["SET", &super::name(key), &value.to_string()]).await;
    }

    /// Stops the process: connections stay open, and nothing is answered.
    pub fn stop(&self) {
        self.signal("-STOP");
    }

    /// Lets a stopped process run on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status();
        assert!(status.expect("`kill` is there").success());
    }

    /// Kills the process; connections are reset.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts the killed server again on the same port, without its data.
    pub async fn restart(&mut self) {
        self.child = spawn(self.port, &self.directory, &self.arguments).expect("it was there");
        assert!(self.is_ready().await, "it starts again");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn spawn(port: u16, directory: &PathBuf, arguments: &[String]) -> Option<Child> {
    PROGRAMS.iter().find_map(|program| {
        Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "no", "--repl-diskless-sync-delay", "0"])
            .arg("--dir")
            .arg(directory)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()
    })
}
