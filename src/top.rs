//! `weir top`: the live page's essentials in a terminal, for a machine without a browser.
//!
//! It asks a running weir's admin port once a second, as any program would: `/status`, `/knee` and `/saturation`. It changes
//! nothing there. What the answers mean is in picture.rs, what is shown in screen.rs; this is the loop between them.

mod labels;
mod picture;
mod screen;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use http::Uri;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::runtime::Runtime;

use self::picture::Picture;
use self::screen::Screen;
use crate::engine_metrics::client;
use crate::engine_metrics::client::Address;
use crate::http_client::Unanswered;

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The address makes no sense.
    #[error("`{0}` is no address of an admin port: write it as http://127.0.0.1:9902")]
    Address(String),
    /// No answer, or not one of a weir.
    #[error("nothing at http://{at} answers {path} as weir's admin port would ({why}); --admin URL says where it is")]
    Unreachable { at: Arc<str>, path: &'static str, why: String },
}

/// Shows the weir whose admin port is at `admin` until `q`; where standard output is no terminal, prints one picture and ends.
///
/// # Errors
/// [`Trouble`] when the first question has no answer, and whatever the terminal says.
pub fn run(admin: &str, colour: bool) -> anyhow::Result<()> {
    let address = address(admin)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut screen = Screen::new(&address.authority, colour && io::stdout().is_terminal());
    screen.on_picture(runtime.block_on(look(&address))?);
    if !io::stdout().is_terminal() {
        return Ok(io::stdout().write_all(printed(&screen).as_bytes())?);
    }
    let (sender, answers) = sync_channel(1);
    std::thread::Builder::new().name("weir-ask".into()).spawn(move || ask_on(&runtime, &address, &sender))?;
    let mut terminal = ratatui::try_init()?;
    let shown = watch(&mut screen, &answers, &mut terminal);
    ratatui::try_restore()?;
    Ok(shown?)
}

/// Draws, and turns keys into choices, until the user leaves.
fn watch(
    screen: &mut Screen,
    answers: &Receiver<Result<Picture, Trouble>>,
    terminal: &mut ratatui::DefaultTerminal,
) -> io::Result<()> {
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        if event::poll(GLANCE)?
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
            && act(screen, key) == TopAction::Leave
        {
            return Ok(());
        }
        while let Ok(answer) = answers.try_recv() {
            match answer {
                Ok(picture) => screen.on_picture(picture),
                Err(trouble) => screen.on_silence(&trouble),
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TopAction {
    Stay,
    Leave,
}

fn act(screen: &mut Screen, key: KeyEvent) -> TopAction {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return TopAction::Leave,
        KeyCode::Char('c') if control => return TopAction::Leave,
        KeyCode::Up | KeyCode::Char('k') => screen.choose_before(),
        KeyCode::Down | KeyCode::Char('j') => screen.choose_after(),
        _ => {}
    }
    TopAction::Stay
}

/// Asks once a second until the receiver is gone; an answer that is not received yet is not replaced.
fn ask_on(runtime: &Runtime, address: &Address, sender: &SyncSender<Result<Picture, Trouble>>) {
    runtime.block_on(async {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            if let Err(TrySendError::Disconnected(_)) = sender.try_send(look(address).await) {
                return;
            }
        }
    });
}

async fn look(address: &Address) -> Result<Picture, Trouble> {
    let ask = async |path| {
        let trouble = |why: String| Trouble::Unreachable { at: address.authority.clone(), path, why };
        let body = client::ask(address, path, PATIENCE).await.map_err(|why: Unanswered| trouble(why.to_string()))?;
        serde_json::from_slice(&body).map_err(|_| trouble("no JSON".to_owned()))
    };
    let (status, knee, saturation) = (ask("/status").await?, ask("/knee").await?, ask("/saturation").await?);
    Picture::of(&status, &knee, &saturation).ok_or_else(|| Trouble::Unreachable {
        at: address.authority.clone(),
        path: "/status",
        why: "no backends in it".to_owned(),
    })
}

/// With or without `http://`; nothing behind the port.
fn address(typed: &str) -> Result<Address, Trouble> {
    let wrong = || Trouble::Address(typed.to_owned());
    let uri: Uri = typed.parse().map_err(|_| wrong())?;
    let plain = uri.scheme_str().is_none_or(|scheme| scheme == "http") && matches!(uri.path(), "" | "/");
    let authority = uri.authority().filter(|_| plain).ok_or_else(wrong)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(80);
    Ok(Address { host: host.into(), port, authority: authority.as_str().into() })
}

/// The picture as text, without what is empty.
fn printed(screen: &Screen) -> String {
    // Drawing into memory cannot fail.
    let Ok(mut terminal) = Terminal::new(TestBackend::new(PAPER.0, PAPER.1));
    let Ok(_) = terminal.draw(|frame| screen.draw(frame));
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(PAPER.0));
    let lines = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
    let text: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
    format!("{}\n", text.join("\n").trim_end())
}

/// How long a key waits at most to be answered by a new picture.
const GLANCE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(3);
/// Columns and rows of a picture that goes to a file.
const PAPER: (u16, u16) = (120, 40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_port_is_named_with_or_without_its_scheme() {
        for typed in ["http://127.0.0.1:9902", "127.0.0.1:9902", "http://127.0.0.1:9902/"] {
            let found = address(typed).unwrap();
            assert_eq!((&*found.host, found.port, &*found.authority), ("127.0.0.1", 9902, "127.0.0.1:9902"), "{typed}");
        }
        assert_eq!(&*address("http://[::1]:9902").unwrap().host, "::1");
    }

    #[test]
    fn what_is_no_address_is_said_and_not_asked() {
        for typed in ["", "https://127.0.0.1:9902", "http://127.0.0.1:9902/status", "/status", "a b"] {
            let why = address(typed).unwrap_err().to_string();
            assert!(why.contains("is no address of an admin port"), "{typed}: {why}");
        }
    }

    #[test]
    fn an_unreachable_weir_is_one_sentence() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let why = run(&gone.to_string(), false).unwrap_err().to_string();
        assert!(why.starts_with(&format!("nothing at http://{gone} answers /status")) && !why.contains('\n'), "{why}");
    }

    #[test]
    fn q_escape_and_control_c_leave_and_other_keys_do_not() {
        let mut screen = Screen::new("here", false);
        let mut wish = |code, modifiers| act(&mut screen, KeyEvent::new(code, modifiers));
        let none = KeyModifiers::NONE;
        assert_eq!(wish(KeyCode::Char('q'), none), TopAction::Leave);
        assert_eq!(wish(KeyCode::Esc, none), TopAction::Leave);
        assert_eq!(wish(KeyCode::Char('c'), KeyModifiers::CONTROL), TopAction::Leave);
        assert_eq!(wish(KeyCode::Char('c'), none), TopAction::Stay);
        assert_eq!(wish(KeyCode::Down, none), TopAction::Stay);
    }
}
