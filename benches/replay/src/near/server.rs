//! A server of its own for each measurement, on a free port of the loopback device.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cortado_near::redis::{Client, RedisResult, cmd};

/// What the server's program may be called.
const PROGRAMS: [&str; 2] = ["valkey-server", "redis-server"];
/// How long a server may take to start.
const START: Duration = Duration::from_secs(20);
/// The time between two attempts to connect to it.
const PAUSE: Duration = Duration::from_millis(5);
/// Ports that are tried: another program may take one that was free a moment ago.
const PORTS: usize = 5;

/// Why there is no server.
#[derive(Debug)]
pub enum ServerError {
    /// None of the programs is installed.
    NotInstalled,
    /// No port is free.
    Port(io::Error),
    /// The program cannot be started.
    Start(&'static str, io::Error),
    /// It was started, and has ended or does not answer.
    Unready(&'static str),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInstalled => write!(
                f,
                "neither {} is installed, and this command needs one of them in PATH",
                PROGRAMS.join(" nor ")
            ),
            Self::Port(_) => write!(f, "no port of the loopback device is free"),
            Self::Start(program, _) => write!(f, "{program} cannot be started"),
            Self::Unready(program) => write!(f, "{program} was started and does not answer"),
        }
    }
}

impl Error for ServerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Port(error) | Self::Start(_, error) => Some(error),
            Self::NotInstalled | Self::Unready(_) => None,
        }
    }
}

/// A running server, killed when it is dropped, or when this program is killed.
pub struct Server {
    child: Child,
    /// `None` if there is no shell.
    watchdog: Option<Watchdog>,
    port: u16,
    name: String,
}

impl Server {
    /// Starts a server that stores nothing on disk.
    pub fn start() -> Result<Self, ServerError> {
        let mut last = ServerError::NotInstalled;
        for _ in 0..PORTS {
            let port = free_port().map_err(ServerError::Port)?;
            let (program, child) = spawn(port)?;
            let watchdog = Watchdog::new(child.id()).ok();
            let mut server = Self { child, watchdog, port, name: String::new() };
            if let Some(name) = server.wait_until_ready() {
                server.name = name;
                return Ok(server);
            }
            last = ServerError::Unready(program);
        }
        Err(last)
    }

    /// Returns its address, for a connection by RESP3.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/?protocol=resp3", self.port)
    }

    /// Returns what it calls itself, with its version.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until it answers, and returns its name; `None` if it ends or takes too long.
    fn wait_until_ready(&mut self) -> Option<String> {
        let end = Instant::now() + START;
        while Instant::now() < end {
            let info = self.info();
            if !matches!(self.child.try_wait(), Ok(None)) {
                return None;
            }
            match info {
                // Another server may answer on a port that this one did not get.
                Ok(info) if !is_of_process(&info, self.child.id()) => return None,
                Ok(info) => return Some(name(&info)),
                Err(_) => thread::sleep(PAUSE),
            }
        }
        None
    }

    fn info(&self) -> RedisResult<String> {
        let mut connection = Client::open(self.url())?.get_connection_with_timeout(START)?;
        connection.set_read_timeout(Some(START))?;
        cmd("INFO").arg("server").query(&mut connection)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // First, so that it kills no later process of the same number.
        self.watchdog = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that waits until this one ends, for whatever reason, and then kills a third.
struct Watchdog(Child);

impl Watchdog {
    /// Starts one that kills the process of this number.
    fn new(id: u32) -> io::Result<Self> {
        // What it reads from is closed with this process. The signals of a terminal go to all of
        // its processes, and must not end it first.
        let script = "trap '' HUP INT TERM; read -r line; kill -9 \"$1\"";
        Command::new("sh")
            .args(["-c", script, "sh", &id.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns whether the server that has answered `INFO server` is the process of this number.
fn is_of_process(info: &str, id: u32) -> bool {
    info.lines().any(|line| line.trim_end() == format!("process_id:{id}"))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn spawn(port: u16) -> Result<(&'static str, Child), ServerError> {
    for program in PROGRAMS {
        let child = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match child {
            Ok(child) => return Ok((program, child)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(ServerError::Start(program, error)),
        }
    }
    Err(ServerError::NotInstalled)
}

/// Returns the name and the version in an answer to `INFO server`.
fn name(info: &str) -> String {
    let field = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    match (field("valkey_version"), field("redis_version")) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, Some(version)) => format!("Redis {version}"),
        (None, None) => "a server of unknown version".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_has_the_version() {
        assert_eq!(name("# Server\r\nredis_version:7.0.15\r\nos:Linux\r\n"), "Redis 7.0.15");
        let valkey = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\n\
                      valkey_version:8.0.1\r\n";
        assert_eq!(name(valkey), "Valkey 8.0.1");
        assert_eq!(name(""), "a server of unknown version");
    }

    #[cfg(unix)]
    #[test]
    fn watchdog_kills_when_its_input_ends_and_not_when_it_is_dropped() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        drop(Watchdog::new(child.id()).unwrap());
        assert!(child.try_wait().unwrap().is_none());
        let mut watchdog = Watchdog::new(child.id()).unwrap();
        drop(watchdog.0.stdin.take());
        // `wait` would close its input, which ends it, too.
        let input = child.stdin.take();
        assert!(child.wait().unwrap().code().is_none(), "it ended by itself");
        drop(input);
    }

    #[test]
    fn missing_server_is_named() {
        let text = ServerError::NotInstalled.to_string();
        assert!(text.starts_with("neither valkey-server nor redis-server is installed"), "{text}");
    }
}
