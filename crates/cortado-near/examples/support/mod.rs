//! What the examples share: a server for as long as they run.

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long the server may take to start.
const START: Duration = Duration::from_secs(20);

/// A server that was started for an example, and is killed with it.
pub struct Server {
    child: Child,
    pub url: String,
}

impl Server {
    /// Starts a server on a free port; `None` where none is installed.
    pub fn start() -> std::io::Result<Option<Self>> {
        let port = free_port()?;
        let child = ["valkey-server", "redis-server"].iter().find_map(|program| {
            Command::new(program)
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
                .stdout(Stdio::null())
                .spawn()
                .ok()
        });
        let Some(child) = child else {
            println!("SKIPPED: neither valkey-server nor redis-server is installed");
            return Ok(None);
        };
        let server = Self { child, url: format!("redis://127.0.0.1:{port}/") };
        wait_for(port)?;
        Ok(Some(server))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a port that no program listens on.
pub fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until a program listens on a port.
pub fn wait_for(port: u16) -> std::io::Result<()> {
    let end = Instant::now() + START;
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
