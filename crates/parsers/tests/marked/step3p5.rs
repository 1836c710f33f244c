use serde_json::json;

use crate::support::{call, case, check_calls, cut, text};

#[test]
fn calls() {
    let one = "<tool_call>\n<function=get_weather>\n<parameter=city>\nKöln\n</parameter>\n</function>\n</tool_call>";
    let other = one.replace("Köln", "Bonn");
    let time = "<tool_call>\n<function=get_time>\n</function>\n</tool_call>";
    let weather = |city: &str| call("get_weather", json!({"city": city}));
    let cases = [
        case("one", one, vec![weather("Köln")]),
        case("ended by the stop text", one.replace("\n</tool_call>", "\n"), vec![weather("Köln")]),
        case("twice the same", format!("{one}\n{one}"), vec![weather("Köln")]),
        case("three times the same", format!("{one}{one}{one}"), vec![weather("Köln")]),
        case("two", format!("{one}\n{other}"), vec![weather("Köln"), weather("Bonn")]),
        case(
            "the first again behind another",
            format!("{one}{other}{one}"),
            vec![weather("Köln"), weather("Bonn"), weather("Köln")],
        ),
        case("the second twice", format!("{one}{other}{other}"), vec![weather("Köln"), weather("Bonn")]),
        case("two tools", format!("{one}{time}"), vec![weather("Köln"), call("get_time", json!({}))]),
        case("no arguments, twice", format!("{time}{time}"), vec![call("get_time", json!({}))]),
        case("text before", format!("See.\n{one}"), vec![text("See."), weather("Köln")]),
        case("text between", format!("{one}a{one}"), vec![weather("Köln"), text("a"), weather("Köln")]),
        case("text behind a repetition", format!("{one}{one}a"), vec![weather("Köln"), text("a")]),
        case(
            "one goes on for longer",
            format!("{one}{}", one.replace("Köln", "Kölner Dom")),
            vec![weather("Köln"), weather("Kölner Dom")],
        ),
        case(
            "a repetition that is cut off",
            format!("{one}<tool_call>\n<function=get_weather>\n<parameter=city>\nKö"),
            vec![weather("Köln"), cut("get_weather", "{\"city\": \"Kö")],
        ),
        case("text only", "See.", vec![text("See.")]),
        case("nothing", "", vec![]),
    ];
    check_calls("step3p5", &cases);
    check_calls("step", &cases);
}
