//! ApiVersions, and what a connection does with frames that are none.

use serde_json::json;

use crate::codec::{request_header, with_length};
use crate::run::{Run, Scenario};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "ApiVersions", name: "which versions are served", body: versions },
    Scenario { api: "ApiVersions", name: "frames that are none", body: garbage },
    Scenario { api: "ApiVersions", name: "requests that wait for one another", body: pipelined },
];

/// The key of Metadata.
const METADATA: i16 = 3;
/// The key of ApiVersions.
const API_VERSIONS: i16 = 18;
/// A key that no API has.
const NO_API: i16 = 999;

fn versions(run: &mut Run<'_>) {
    let body = json!({"clientSoftwareName": "oracle", "clientSoftwareVersion": "1"});
    run.ask("all", body.clone());
    run.mutate(&body, &[]);
}

/// Everything here is a question of the connection, so it is asked once, not in every version.
fn garbage(run: &mut Run<'_>) {
    if run.version != 0 {
        return;
    }
    let newer = with_length(&request_header(API_VERSIONS, 99, 7, true));
    run.send_bytes("ApiVersions in a version of the future", &newer);
    run.send_bytes(
        "ApiVersions in a negative version",
        &with_length(&request_header(API_VERSIONS, -1, 7, false)),
    );
    run.send_bytes(
        "Metadata in a version of the future",
        &with_length(&request_header(METADATA, 99, 7, true)),
    );
    run.send_bytes("a key of no API", &with_length(&request_header(NO_API, 0, 7, false)));
    run.send_bytes("a negative key", &with_length(&request_header(-1, 0, 7, false)));
    run.send_bytes("a header that is cut", &with_length(&request_header(METADATA, 1, 7, false)[..6]));
    run.send_bytes("a body that is cut", &with_length(&request_header(METADATA, 1, 7, false)));
    run.send_bytes("an empty frame", &with_length(&[]));
    run.send_bytes("a negative length", &(-1i32).to_be_bytes());
    run.send_bytes("a length beyond the limit", &i32::MAX.to_be_bytes());
    run.send_bytes("HTTP", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let nothing = [request_header(METADATA, 1, 7, false), vec![0, 0, 0, 0]].concat();
    run.send_bytes("an array longer than its frame", &{
        let mut claims = nothing.clone();
        let at = claims.len() - 4;
        claims[at] = 0x7f;
        with_length(&claims)
    });
    let longer = with_length(&[nothing, vec![1, 2, 3]].concat());
    run.whether_answered("bytes after the body", &longer);
}

fn pipelined(run: &mut Run<'_>) {
    let version = run.version;
    let sent: Vec<_> = (0..5)
        .map(|number| match number % 2 {
            0 => run.send(
                "the first of a row",
                "ApiVersions",
                version,
                &json!({"clientSoftwareName": "a", "clientSoftwareVersion": "1"}),
            ),
            _ => run.send("the second of a row", "DescribeCluster", 0, &json!({})),
        })
        .collect();
    for sent in sent {
        run.receive(sent);
    }
}
