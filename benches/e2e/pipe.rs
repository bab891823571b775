//! A byte pipe from one port to another, one connection to one connection: the least a proxy can do, and, with a spin of a
//! known length per read of the backend, a proxy whose extra cost is known. The selftest measures the difference.

use std::hint::spin_loop;
use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Pipes every connection on `front` to `back`, until killed.
///
/// # Errors
/// The port is taken.
pub fn run(front: u16, back: u16, spin: Duration) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(("127.0.0.1", front)).await?;
        loop {
            let (client, _) = listener.accept().await?;
            // A connection that breaks is the client's to report.
            tokio::spawn(async move { drop(carry(client, back, spin).await) });
        }
    })
}

async fn carry(mut client: TcpStream, back: u16, spin: Duration) -> io::Result<()> {
    let mut backend = TcpStream::connect(("127.0.0.1", back)).await?;
    client.set_nodelay(true)?;
    backend.set_nodelay(true)?;
    let (mut up, mut down) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => match read? {
                0 => return Ok(()),
                len => backend.write_all(&up[..len]).await?,
            },
            read = backend.read(&mut down) => match read? {
                0 => return Ok(()),
                len => {
                    spin_for(spin);
                    client.write_all(&down[..len]).await?;
                }
            },
        }
    }
}

fn spin_for(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        spin_loop();
    }
}

/// Room for several events of a burst.
const BUFFER: usize = 4_096;
