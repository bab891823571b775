//! The configuration changes while the process runs: by signal, by POST, by itself; all or nothing, and nobody is lost.

use std::path::Path;
use std::time::Duration;

use crate::support::client::CHAT;
use crate::support::origin::held_open;
use crate::support::reloads::{File, names, naming, storm, streaming, tally};
use crate::support::{Client, Process, chat, post, time};

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_weir"))
}

fn served_by(weir: &Process) -> String {
    let answer = Client::connect(weir.address).send(&post(CHAT, "x-short: yes\r\n", b"{}")).answer();
    format!("{} {}", answer.status, answer.field("x-weir-backend").unwrap_or("nobody"))
}

#[test]
fn reloads_under_load_lose_no_request_and_keep_the_books() {
    let seen = storm(program(), "short", 30, 8, 7);
    assert!(seen.broken.is_empty(), "{:?}", seen.broken);
    assert!(seen.surprises.is_empty(), "{:?}", seen.surprises);
    assert!(seen.books.is_empty(), "{:?}", seen.books);
    assert_eq!(seen.whole, seen.served, "what clients got and what backends saw");
    assert!(seen.accepted >= 10 && seen.refused >= 5 && seen.whole > 100, "{seen:?}");
    assert_eq!(seen.left.0, seen.left.1, "families of backends that are gone");
}

#[test]
fn a_removed_backend_ends_its_streams_and_is_gone() {
    let (leaving, finish) = held_open();
    let (staying, _finish) = held_open();
    let origins = [leaving, staying];
    let file = File::new("leaving");
    file.write(&naming(&origins, &[0], ""));
    let weir = Process::of_file(program(), &file.path());
    let mut stream = Client::connect(weir.address);
    stream.send(&post(CHAT, "", chat(2).as_bytes())).until("one");
    file.write(&naming(&origins, &[1], ""));
    let answer = weir.post("/-/reload");
    assert_eq!((answer.status, answer.text().contains("\"changed\":[\"backends.b0\",\"backends.b1\"]")), (200, true));
    for _ in 0..5 {
        assert_eq!(served_by(&weir), "200 b1");
    }
    time::pause(Duration::from_secs(3));
    assert_eq!(names(&weir), ["b0", "b1"], "it has a stream still");
    finish.send(()).unwrap();
    let answer = stream.answer();
    assert!(answer.complete && answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
    time::until("its families are gone", || names(&weir) == ["b1"]);
    assert!(!weir.page("/metrics").contains("b0") && !weir.page("/status").contains("\"b0\""));
    // Back under the same name, with books that begin anew.
    file.write(&naming(&origins, &[0], ""));
    assert_eq!(weir.post("/-/reload").status, 200);
    assert_eq!(served_by(&weir), "200 b0");
}

#[test]
fn a_backend_that_comes_back_while_it_leaves_keeps_its_books() {
    let (first, finish) = held_open();
    let origins = [first, streaming(2, Duration::from_millis(1))];
    let file = File::new("back");
    file.write(&naming(&origins, &[0], ""));
    let weir = Process::of_file(program(), &file.path());
    let mut stream = Client::connect(weir.address);
    stream.send(&post(CHAT, "", chat(2).as_bytes())).until("one");
    for chosen in [[1], [0]] {
        file.write(&naming(&origins, &chosen, ""));
        assert_eq!(weir.post("/-/reload").status, 200);
    }
    assert_eq!(served_by(&weir), "200 b0");
    assert!(
        weir.page("/metrics").contains("weir_inflight_requests{backend=\"b0\",model_name=\"m\",phase=\"decode\"} 1")
    );
    finish.send(()).unwrap();
    assert!(stream.answer().complete);
}

#[test]
fn a_moved_backend_is_called_at_its_new_address() {
    let origins = [streaming(2, Duration::from_millis(1)), streaming(2, Duration::from_millis(1))];
    let file = File::new("moved");
    file.write(&naming(&origins, &[0], ""));
    let weir = Process::of_file(program(), &file.path());
    let mut kept_alive = Client::connect(weir.address);
    assert!(kept_alive.send(&post(CHAT, "", chat(2).as_bytes())).answer().complete);
    let moved = naming(&origins, &[0], "").replace(&origins[0].address.to_string(), &origins[1].address.to_string());
    file.write(&moved);
    assert!(weir.post("/-/reload").text().contains("\"changed\":[\"backends.b0.url\"]"));
    for _ in 0..3 {
        assert!(kept_alive.send(&post(CHAT, "", chat(2).as_bytes())).answer().complete);
    }
    assert_eq!((origins[0].seen().len(), origins[1].seen().len()), (1, 3), "no idle connection leads to the old one");
}

#[test]
fn a_bad_file_changes_nothing_and_says_so_everywhere() {
    let origins = [streaming(2, Duration::from_millis(1))];
    let file = File::new("bad");
    file.write(&naming(&origins, &[0], ""));
    let weir = Process::of_file(program(), &file.path());
    let before = weir.page("/config");
    file.write(&naming(&origins, &[0], "mode: enforce\nlimits: { max_bdy: 1MiB }\n"));
    let answer = weir.post("/-/reload");
    assert_eq!(answer.status, 400);
    let told = "weir.yaml:5:11: limits.max_bdy: unknown key `max_bdy`, did you mean `max_body`?";
    assert!(answer.text().contains(told), "{}", answer.text());
    assert_eq!(weir.page("/config"), before);
    assert!(weir.page("/metrics").contains("\nweir_config_last_reload_successful 0\n"));
    assert!(weir.log().contains("the new configuration was refused") && weir.log().contains("did you mean"));
    file.write(&naming(&origins, &[0], "mode: enforce\n"));
    assert_eq!(weir.post("/-/reload").status, 200);
    assert!(weir.page("/metrics").contains("\nweir_config_last_reload_successful 1\n"));
    assert_eq!(weir.status()["mode"], "enforce");
    assert!(weir.log().contains("the configuration was reloaded"), "{}", weir.log());
}

#[test]
fn what_a_reload_cannot_change_is_named() {
    let origins = [streaming(2, Duration::from_millis(1))];
    let file = File::new("rest");
    file.write(&naming(&origins, &[0], ""));
    let weir = Process::of_file(program(), &file.path());
    let next = naming(
        &origins,
        &[0],
        "slo: { ttft: 3s }\nlog: { level: error, format: text }\nlimits: { max_header: 2KiB }\njournal: { path: /nowhere }\nadmin: { token: canary }\n",
    );
    file.write(&next.replace("workers: 2", "workers: 3"));
    let answer = weir.post("/-/reload").text();
    // The watch of the file may have been first: then the answer has nothing left to change.
    let is_named = answer.contains("\"changed\":[\"limits.max_header\",\"log.level\",\"slo.ttft\"]")
        || answer.contains("\"changed\":[]") && weir.page("/config").contains("\"3s\"");
    assert!(is_named, "{answer}");
    assert!(
        answer.contains("\"needs_restart\":[\"admin.token\",\"journal.path\",\"log.format\",\"workers\"]"),
        "{answer}"
    );
    assert!(!answer.contains("canary") && !weir.page("/config").contains("canary"));
    let config: serde_json::Value = serde_json::from_str(&weir.page("/config")).unwrap();
    assert_eq!((&config["slo"]["ttft"], &config["workers"]), (&"3s".into(), &2.into()));
    assert_eq!(config["needs_restart"], serde_json::json!(["admin.token", "journal.path", "log.format", "workers"]));
    assert!(config["origins"]["slo.ttft"].as_str().unwrap().ends_with("weir.yaml:4"), "{config}");
    assert_eq!(config["origins"]["listen"], "flag --listen");
    let long = format!("x-long: {}\r\n", "a".repeat(3000));
    assert_eq!(Client::connect(weir.address).send(&post(CHAT, &long, b"{}")).answer().status, 431);
    let lines = weir.log().lines().count();
    file.write(&naming(&origins, &[0], "log: { level: error }\n"));
    assert_eq!(weir.post("/-/reload").status, 200);
    assert_eq!(weir.log().lines().count(), lines, "the level is error now: {}", weir.log());
}

#[test]
fn a_signal_reloads_and_so_does_a_changed_file_on_its_own() {
    let origins = [streaming(2, Duration::from_millis(1)), streaming(2, Duration::from_millis(1))];
    let file = File::new("itself");
    file.write(&naming(&origins, &[0], ""));
    let weir = Process::of_file(program(), &file.path());
    file.write(&naming(&origins, &[0, 1], ""));
    time::until("it was noticed", || names(&weir) == ["b0", "b1"]);
    assert_eq!(tally(&weir, "accepted"), 1);
    weir.signal("HUP");
    time::until("the signal was heard", || tally(&weir, "accepted") == 2);
    // Written again as it was: there is nothing to take over.
    file.write(&naming(&origins, &[0, 1], ""));
    time::pause(Duration::from_secs(1));
    assert_eq!(tally(&weir, "accepted"), 2);
}

#[test]
fn the_swap_of_a_config_map_is_noticed() {
    let origins = [streaming(2, Duration::from_millis(1)), streaming(2, Duration::from_millis(1))];
    let folder = std::env::temp_dir().join(format!("weir-map-{}", std::process::id()));
    let version = |name: &str, text: &str| {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("weir.yaml"), text).unwrap();
    };
    let link = |to: &str, at: &str| {
        let _ = std::fs::remove_file(folder.join("..data_tmp"));
        std::os::unix::fs::symlink(to, folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join(at)).unwrap();
    };
    version("..2026_1", &naming(&origins, &[0], ""));
    link("..2026_1", "..data");
    std::os::unix::fs::symlink("..data/weir.yaml", folder.join("weir.yaml")).unwrap();
    let weir = Process::of_file(program(), &folder.join("weir.yaml"));
    assert_eq!(names(&weir), ["b0"]);
    version("..2026_2", &naming(&origins, &[0, 1], ""));
    link("..2026_2", "..data");
    time::until("the swap was noticed", || names(&weir) == ["b0", "b1"]);
    drop(weir);
    std::fs::remove_dir_all(&folder).unwrap();
}
