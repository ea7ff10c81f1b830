//! What operators copy (`deploy/`) fits the program: the unit's and the container's own command lines and environments start
//! it. What watches it is in `monitoring`.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rdkafka::consumer::Consumer;
use serde_json::{Value, json};
use tidings_tests::{LONG, Launch, until};

/// The path of a file of `deploy/`.
pub fn deploy_path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

/// Its text.
pub fn deploy(file: &str) -> String {
    let path = deploy_path(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a file in YAML says, as a parser reads it that others use as well.
pub fn deploy_yaml(file: &str) -> Value {
    const TO_JSON: &str = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let output =
        Command::new("python3").args(["-c", TO_JSON]).arg(deploy_path(file)).output().expect("run Python");
    assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The unit's own command line, with the paths and ports of a test.
#[test]
fn the_unit_starts_the_platform() {
    let unit = deploy("systemd/tidings.service");
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("ExecStart");
    let mut words = command.split(' ');
    assert_eq!(words.next(), Some("/usr/local/bin/tidings"));
    assert_eq!(words.next(), Some("up"));
    assert!(unit.contains("\nExecReload=/bin/kill -HUP $MAINPID\n"));
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("tidings.toml");
    std::fs::write(&config, "").unwrap();
    let (config, data) = (config.display().to_string(), directory.path().join("data").display().to_string());
    let arguments: Vec<String> = words
        .map(|word| word.replace("/etc/tidings/tidings.toml", &config).replace("/var/lib/tidings", &data))
        .collect();
    assert_eq!(arguments, ["--config", &config, "--data-dir", &data]);
    let tidings = Launch::up(Path::new(&data)).arguments(["--config", &config]).start();
    assert!(tidings.terminate(LONG).status.success());
}

/// systemd passes over what it does not know: a protection that is spelled wrong would be none.
#[test]
fn systemd_knows_all_that_the_unit_says() {
    let folder = tempfile::tempdir().unwrap();
    let verify = |unit: &str| {
        let file = folder.path().join("tidings.service");
        std::fs::write(&file, unit.replace("/usr/local/bin/tidings", "/bin/true")).unwrap();
        let output = Command::new("systemd-analyze").arg("verify").arg(&file).output();
        let output = output.expect("run systemd-analyze, of Debian's package systemd");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        words.lines().filter(|line| line.contains("tidings.service")).collect::<String>()
    };
    let unit = deploy("systemd/tidings.service");
    assert_eq!(verify(&unit), "");
    assert!(verify(&unit.replace("ProtectHome", "ProtectHomes")).contains("ProtectHomes"));
}

/// An instruction of the container file, with its continued lines.
fn instruction(name: &str) -> String {
    let text = deploy("container/Containerfile").replace("\\\n", "");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    lines.next_back().unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
}

fn words(json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

/// The environment of the compose file's service: the image's, and its own where nothing is set outside.
fn container_environment(service: &Value) -> BTreeMap<String, String> {
    let image = instruction("ENV");
    let mut environment: BTreeMap<String, String> = image
        .split(' ')
        .map(|pair| pair.split_once('=').expect("NAME=VALUE"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for (name, value) in service["environment"].as_object().expect("an environment") {
        let value = value.as_str().expect("a text");
        let default = value.strip_prefix("${").and_then(|value| value.strip_suffix('}'));
        let value = default.map_or(value, |default| default.split_once(":-").expect("a default").1);
        environment.insert(name.clone(), value.to_owned());
    }
    environment
}

/// When the compose file has the health asked for, in the words of the container file, and by which command.
fn health_check_of(service: &Value) -> (String, Vec<String>) {
    let check = &service["healthcheck"];
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let when = ["interval", "timeout", "start_period"]
        .map(|name| format!("--{}={}", name.replace('_', "-"), text(&check[name])));
    let command: Vec<String> = check["test"].as_array().expect("words").iter().map(text).collect();
    assert_eq!(command[0], "CMD");
    // To compose files a single dollar is the beginning of a variable.
    (when.join(" "), command[1..].iter().map(|word| word.replace("$$", "$")).collect())
}

/// The container's command, environment and user, beside the paths and ports of a test: another container is told an address
/// that it can resolve and is let in by that name, and the health check notices when there is nobody.
#[test]
fn the_container_serves_other_containers() {
    assert_eq!(words(&instruction("ENTRYPOINT")), ["/usr/local/bin/tidings"]);
    assert_eq!(words(&instruction("CMD")), ["up"]);
    let compose = deploy_yaml("container/compose.yml");
    let (name, service) = compose["services"].as_object().expect("services").iter().next().expect("one");
    assert_eq!((&service["read_only"], &service["cap_drop"]), (&json!(true), &json!(["ALL"])));
    let limit = service["mem_limit"].as_str().and_then(|limit| limit.strip_suffix('m')).expect("megabytes");
    assert!(limit.parse::<u64>().is_ok());

    let uid = instruction("USER").split(':').next().and_then(|uid| uid.parse().ok()).expect("a user");
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("volume");
    std::fs::create_dir(&data_dir).unwrap();
    std::os::unix::fs::chown(&data_dir, Some(uid), Some(uid)).expect("give it to the user; needs root");
    std::os::unix::fs::chown(directory.path(), Some(uid), Some(uid)).unwrap();
    let mut launch = Launch::up_by_environment();
    for (name, value) in container_environment(service) {
        let value = match name.as_str() {
            "TIDINGS_DATA_DIR" => {
                assert_eq!(instruction("VOLUME"), value);
                data_dir.display().to_string()
            }
            "TIDINGS_KAFKA" | "TIDINGS_HTTP" => format!("{}:0", value.split(':').next().expect("an address")),
            _ => value,
        };
        launch = launch.environment(&name, &value);
    }
    let tidings = launch.as_user(uid).start();
    let port = |address: &str| address.rsplit(':').next().expect("a port").to_owned();
    let outside = format!("{}:{}", own_address(), port(&tidings.bootstrap()));
    assert_eq!(told(outside), format!("{name}:9092"));
    let host = format!("{name}:8080");
    let ready = || tidings.http().request("GET", "/readyz", &[("host", &host)], b"").status == 200;
    until("it is ready for those who ask by its name", || ready().then_some(()));

    let check = instruction("HEALTHCHECK");
    let (when, check) = check.split_once(" CMD ").expect("a command");
    let check = words(check);
    assert_eq!(health_check_of(service), (when.to_owned(), check.clone()));
    let http_port = port(tidings.http().address());
    let is_healthy = || {
        let check = check.iter().map(|word| word.replace("/8080", &format!("/{http_port}")));
        let check: Vec<String> = check.collect();
        let mut command = Command::new(&check[0]);
        command.args(&check[1..]).stderr(Stdio::null()).status().expect("run the check").success()
    };
    until("it is healthy", || is_healthy().then_some(()));
    assert!(tidings.terminate(LONG).status.success());
    assert!(!is_healthy());
}

/// Whoever comes from another machine is told the advertised address, whoever is on this one the address it used.
#[test]
fn the_advertised_address_is_for_others() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::broker(directory.path()).at("0.0.0.0:0");
    let tidings = launch.arguments(["--insecure", "--advertised", "tidings.test:19092"]).start();
    let port = tidings.bootstrap().rsplit(':').next().expect("a port").to_owned();
    assert_eq!(told(format!("127.0.0.1:{port}")), format!("127.0.0.1:{port}"));
    assert_eq!(told(format!("{}:{port}", own_address())), "tidings.test:19092");
}

/// Where a client that came by this address is told to connect.
fn told(address: String) -> String {
    let metadata =
        tidings_tests::Kafka::new(&address).reader("told").fetch_metadata(None, LONG).expect("ask");
    let broker = &metadata.brokers()[0];
    format!("{}:{}", broker.host(), broker.port())
}

/// This machine's address on its network. Connecting a datagram socket sends nothing.
fn own_address() -> std::net::IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect("192.0.2.1:9").expect("this machine is on a network");
    socket.local_addr().expect("an address").ip()
}
