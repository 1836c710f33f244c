//! Numbers that are more than a number: dates, times, amounts of something.

use regex::Captures;

use super::Rule;

/// Units, one and many of them.
const UNITS: [(&str, &str, &str); 37] = [
    ("kg", "kilogram", "kilograms"),
    ("mg", "milligram", "milligrams"),
    ("g", "gram", "grams"),
    ("km", "kilometer", "kilometers"),
    ("cm", "centimeter", "centimeters"),
    ("mm", "millimeter", "millimeters"),
    ("nm", "nanometer", "nanometers"),
    ("m", "meter", "meters"),
    ("ft", "foot", "feet"),
    ("lb", "pound", "pounds"),
    ("lbs", "pound", "pounds"),
    ("oz", "ounce", "ounces"),
    ("ml", "milliliter", "milliliters"),
    ("mL", "milliliter", "milliliters"),
    ("km/h", "kilometer per hour", "kilometers per hour"),
    ("kph", "kilometer per hour", "kilometers per hour"),
    ("mph", "mile per hour", "miles per hour"),
    ("m/s", "meter per second", "meters per second"),
    ("kB", "kilobyte", "kilobytes"),
    ("KB", "kilobyte", "kilobytes"),
    ("MB", "megabyte", "megabytes"),
    ("GB", "gigabyte", "gigabytes"),
    ("TB", "terabyte", "terabytes"),
    ("Mbps", "megabit per second", "megabits per second"),
    ("Gbps", "gigabit per second", "gigabits per second"),
    ("Hz", "hertz", "hertz"),
    ("kHz", "kilohertz", "kilohertz"),
    ("MHz", "megahertz", "megahertz"),
    ("GHz", "gigahertz", "gigahertz"),
    ("kW", "kilowatt", "kilowatts"),
    ("kWh", "kilowatt hour", "kilowatt hours"),
    ("ms", "millisecond", "milliseconds"),
    ("sec", "second", "seconds"),
    ("min", "minute", "minutes"),
    ("mins", "minute", "minutes"),
    ("hr", "hour", "hours"),
    ("hrs", "hour", "hours"),
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const TENS: [&str; 10] =
    ["hundreds", "tens", "twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties"];

const SMALL: [&str; 11] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

pub fn rules() -> Vec<Rule> {
    let mut units: Vec<&str> = UNITS.iter().map(|(unit, ..)| *unit).collect();
    // The longest that fits.
    units.sort_by_key(|unit| std::cmp::Reverse(unit.len()));
    vec![
        Rule::new(r"\b(\d{4})-(\d{2})-(\d{2})\b", |found, british| date(found, [1, 2, 3], british)),
        Rule::new(r"\b(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})\b", |found, british| {
            date(found, if british { [3, 2, 1] } else { [3, 1, 2] }, british)
        }),
        Rule::new(r"\b(\d{1,2}):([0-5]\d)(?::([0-5]\d))?\b(\s?[AaPp]\.?[Mm]\b)?", time),
        Rule::new(r"\b(\d{2})(\d)0s\b", |found, _| decade(found)),
        Rule::new(r"['’]?\b([2-9])0s\b", |found, _| TENS[digit(&found[1])].into()),
        Rule::new(
            r"([$£€¥₹])\s?(\d[\d,]*(?:\.\d+)?)(?:\s?(thousand|million|billion|trillion|[kKmMbB]|bn)\b)?",
            |found, _| money(found),
        ),
        Rule::new(r"(\d)\s?°\s?([CF])\b", |found, _| {
            format!("{} degrees {}", &found[1], if &found[2] == "C" { "Celsius" } else { "Fahrenheit" })
        }),
        Rule::new(&format!(r"\b(\d[\d,]*(?:\.\d+)?)\s?({})\b", units.join("|")), |found, _| {
            let unit = UNITS.iter().find(|(unit, ..)| *unit == &found[2]);
            let (_, one, many) = unit.copied().unwrap_or_default();
            format!("{} {}", &found[1], if &found[1] == "1" { one } else { many })
        }),
        Rule::new(r"(\d*)([½¼¾⅓⅔⅛])", |found, _| {
            let part = match &found[2] {
                "½" => "one half",
                "¼" => "one quarter",
                "¾" => "three quarters",
                "⅓" => "one third",
                "⅔" => "two thirds",
                _ => "one eighth",
            };
            if found[1].is_empty() { part.into() } else { format!("{} and {part}", &found[1]) }
        }),
        Rule::new(r"\b(?:(\d+) )?(\d{1,2})/(\d{1,2})\b", |found, _| fraction(found)),
        Rule::new(r"\b(\d[\d,.]*)\s?–\s?(\d)", |found, _| format!("{} to {}", &found[1], &found[2])),
        Rule::new(r"\b\d+(?:-\d+)+\b", |found, _| hyphenated(&found[0])),
    ]
}

fn digit(text: &str) -> usize {
    text.parse().unwrap_or_default()
}

/// Groups of a match: year, month, day. What is no date is left as it is.
fn date(found: &Captures<'_>, [year, month, day]: [usize; 3], british: bool) -> String {
    let (month, day, year) = (digit(&found[month]), digit(&found[day]), &found[year]);
    let (Some(month), 1..=31) = (MONTHS.get(month.wrapping_sub(1)), day) else { return found[0].to_owned() };
    let ending = match (day % 10, day / 10) {
        (_, 1) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    if british { format!("the {day}{ending} of {month}, {year}") } else { format!("{month} {day}{ending}, {year}") }
}

fn time(found: &Captures<'_>, _: bool) -> String {
    let (hour, minute) = (&found[1], digit(&found[2]));
    if digit(hour) > 24 {
        return found[0].to_owned();
    }
    let (second, half) = (found.get(3), found.get(4).map_or("", |half| half.as_str()));
    let minutes = match minute {
        0 if second.is_none() && half.is_empty() => " o'clock".into(),
        0 if second.is_none() => String::new(),
        1..=9 => format!(" oh {minute}"),
        _ => format!(" {minute}"),
    };
    let seconds = second.map_or(String::new(), |second| format!(" and {} seconds", digit(second.as_str())));
    let half = if half.is_empty() { String::new() } else { format!(" {}", half.trim().replace('.', "")) };
    format!("{hour}{minutes}{seconds}{half}")
}

/// `1990s`, as century and tens.
fn decade(found: &Captures<'_>) -> String {
    let (century, tens) = (digit(&found[1]), digit(&found[2]));
    match (century % 10, tens) {
        (0, 0) => format!("{} thousands", century / 10),
        _ => format!("{century} {}", TENS[tens]),
    }
}

fn money(found: &Captures<'_>) -> String {
    let (amount, many) = (&found[2], found.get(3).map(|many| many.as_str()));
    let size = match many {
        // Misaki reads these, with cents and pence.
        None if matches!(&found[1], "$" | "£" | "€") => return found[0].to_owned(),
        None => "",
        Some("k" | "K" | "thousand") => " thousand",
        Some("m" | "M" | "million") => " million",
        Some("trillion") => " trillion",
        Some(_) => " billion",
    };
    let currency = match &found[1] {
        "$" => "dollars",
        "£" => "pounds",
        "€" => "euros",
        "¥" => "yen",
        _ => "rupees",
    };
    format!("{amount}{size} {currency}")
}

fn fraction(found: &Captures<'_>) -> String {
    let (above, below) = (digit(&found[2]), digit(&found[3]));
    let whole = found.get(1).map_or("", |whole| whole.as_str());
    let part = match below {
        2 => "half",
        3 => "third",
        4 => "quarter",
        5 => "fifth",
        6 => "sixth",
        8 => "eighth",
        10 => "tenth",
        _ => "",
    };
    if part.is_empty() || above >= below || above == 0 {
        return format!("{whole} {above} {below}").trim().to_owned();
    }
    let many = if above == 1 { "" } else { "s" };
    let and = if whole.is_empty() { String::new() } else { format!("{whole} and ") };
    format!("{and}{} {part}{many}", SMALL[above])
}

/// A range, if it is one of two numbers; else a telephone's number and the like, digit by digit.
fn hyphenated(text: &str) -> String {
    let groups: Vec<&str> = text.split('-').collect();
    if let [from, to] = groups[..]
        && let (Ok(low), Ok(high)) = (from.parse::<u64>(), to.parse::<u64>())
        && low < high
        && (from.len(), to.len()) != (3, 4)
    {
        return format!("{from} to {to}");
    }
    let digits = |group: &&str| group.chars().map(String::from).collect::<Vec<_>>().join(" ");
    groups.iter().map(digits).collect::<Vec<_>>().join(", ")
}
