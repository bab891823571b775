"""The pieces that weir's dashboards are made of: selectors, panels, rows, a page.

Every panel names its datasource by the template variable, so that a provisioned copy works as well as an imported one. It
holds no query and no title: those are in overview.py, backend.py and sweep.py.
"""

import re

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24

# Selectors, written as one capital letter in braces in the queries.
P = 'cluster=~"$cluster",namespace=~"$namespace",job=~"$job"'
B = P + ',backend=~"$backend"'
S = B + ',model_name=~"$model_name"'
SELECTORS = {
    "P": P,
    "B": B,
    "S": S,
    "D": S + ',instance=~"$instance"',
    "E": B + ',instance=~"$instance"',
    "I": P + ',instance=~"$instance"',
}

GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "#8e8e8e"
STATES = {
    0: ("unknown", GREY),
    1: ("healthy", GREEN),
    2: ("approaching", YELLOW),
    3: ("recovering", BLUE),
    4: ("saturated", RED),
}
NOT_KNOWN = [{"type": "special", "options": {"match": match, "result": {"text": "not known yet", "color": GREY}}} for match in ("nan", "null", "empty")]


def expand(query, prefix=""):
    """A query as typed in the tables, with its selectors written out and `prefix` before every name of weir's."""
    for letter, selector in SELECTORS.items():
        query = query.replace("{" + letter + "}", "{" + selector + "}").replace("{" + letter + ",", "{" + selector + ",")
    query = query.replace("[R]", "[$__rate_interval]")
    return re.sub(r"\bweir_", prefix + "weir_", query) if prefix else query


def target(query, legend="", ref="A", instant=False, form="time_series"):
    return {
        "datasource": DATASOURCE,
        "refId": ref,
        "expr": query,
        "legendFormat": legend or "__auto",
        "range": not instant,
        "instant": instant,
        "format": form,
    }


def panel(kind, title, about, queries, unit="short", width=8, height=8, **more):
    """A panel; `queries` are pairs of query and legend. `more`: thresholds, mappings, options, overrides, stacked, lines, span."""
    instant = kind in ("stat", "gauge", "table")
    form = {"table": "table", "heatmap": "heatmap"}.get(kind, "time_series")
    refs = "ABCDEFGHIJ"
    defaults = {"unit": unit, "mappings": more.get("mappings", []) , "color": more.get("color", {"mode": "palette-classic"})}
    if "thresholds" in more:
        steps = [{"color": color, "value": value} for value, color in more["thresholds"]]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        defaults["color"] = more.get("color", {"mode": "thresholds"} if kind in ("stat", "gauge") else {"mode": "palette-classic"})
    for bound in ("min", "max", "noValue", "decimals"):
        if bound in more:
            defaults[bound] = more[bound]
    if kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": more.get("draw", "line"),
            "lineWidth": 1,
            "fillOpacity": 25 if more.get("stacked") else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if more.get("stacked") else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if "thresholds" in more else "off"},
            "axisLabel": more.get("axis", ""),
        }
    made = {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": height, "x": 0, "y": 0},
        "targets": [target(query, legend, ref, instant, form) for ref, (query, legend) in zip(refs, queries)],
        "fieldConfig": {"defaults": defaults, "overrides": more.get("overrides", [])},
        "options": {**OPTIONS.get(kind, {}), **more.get("options", {})},
    }
    if "span" in more:
        made["timeFrom"] = more["span"]
    if "transformations" in more:
        made["transformations"] = more["transformations"]
    return made


OPTIONS = {
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "background", "graphMode": "none", "textMode": "auto", "justifyMode": "auto", "orientation": "auto"},
    "gauge": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "showThresholdLabels": False, "showThresholdMarkers": True, "orientation": "auto"},
    "timeseries": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}, "tooltip": {"mode": "multi", "sort": "desc"}},
    "state-timeline": {"showValue": "auto", "mergeValues": True, "rowHeight": 0.9, "alignValue": "left", "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}, "tooltip": {"mode": "single", "sort": "none"}},
    "heatmap": {"calculate": False, "yAxis": {"axisPlacement": "left", "unit": "s"}, "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange", "reverse": False, "scale": "exponential"}, "cellGap": 1, "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False}, "legend": {"show": False}, "exemplars": {"color": "rgba(255,0,255,0.7)"}, "filterValues": {"le": 1e-9}, "rowsFrame": {"layout": "auto"}, "showValue": "never"},
    "table": {"showHeader": True, "cellHeight": "sm", "footer": {"show": False, "reducer": ["sum"], "countRows": False, "fields": []}},
    "xychart": {"seriesMapping": "auto", "dims": {"frame": 0}, "series": [], "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}, "tooltip": {"mode": "single", "sort": "none"}},
}


def dashed(series):
    """An override: the series of that legend is a dashed line."""
    return {"matcher": {"id": "byName", "options": series}, "properties": [{"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}}, {"id": "custom.lineWidth", "value": 2}]}


def band(low, high):
    """Overrides: the space between two series is filled, and neither is a line."""
    quiet = [{"id": "custom.lineWidth", "value": 0}, {"id": "custom.hideFrom", "value": {"legend": True, "tooltip": False, "viz": False}}]
    fill = quiet + [{"id": "custom.fillBelowTo", "value": low}, {"id": "custom.fillOpacity", "value": 15}]
    return [{"matcher": {"id": "byName", "options": name}, "properties": rules} for name, rules in ((low, quiet), (high, fill))]


def coloured(**colours):
    """Overrides: a colour a legend."""
    return [{"matcher": {"id": "byName", "options": name}, "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]} for name, colour in colours.items()]


def states():
    """The mapping from a number to the word and the colour of a state."""
    return [{"type": "value", "options": {str(number): {"text": word, "color": colour, "index": number} for number, (word, colour) in STATES.items()}}] + NOT_KNOWN


def page(uid, title, rows, by_instance=False, prefix=""):
    """A dashboard of rows: pairs of a name and its panels, or triples with True for one that is shut at first."""
    panels, y, number = [], 0, 1
    for name, content, *shut in rows:
        row = {"type": "row", "title": name, "id": number, "collapsed": bool(shut), "panels": [], "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}}
        number, y, x, deepest = number + 1, y + 1, 0, 0
        panels.append(row)
        for one in content:
            place = one["gridPos"]
            if x + place["w"] > WIDTH:
                x, y, deepest = 0, y + deepest, 0
            one["id"], place["x"], place["y"] = number, x, y
            number, x, deepest = number + 1, x + place["w"], max(deepest, place["h"])
            for aim in one["targets"]:
                aim["expr"] = expand(aim["expr"], prefix)
            (row["panels"] if shut else panels).append(one)
        y += deepest
    return {
        "id": None,
        "uid": uid,
        "title": title,
        "tags": ["weir"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "weekStart": "",
        "links": [{"type": "dashboards", "title": "weir", "tags": ["weir"], "asDropdown": True, "includeVars": True, "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": "", "url": ""}],
        "templating": {"list": variables(by_instance, prefix)},
        "annotations": {"list": annotations(prefix)},
        "panels": panels,
    }


def variables(by_instance, prefix):
    asked = lambda label, metric, selector: variable(label, f"label_values({prefix}{metric}{{{selector}}}, {label})")
    made = [
        {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "hide": 0, "multi": False, "includeAll": False, "current": {"text": "default", "value": "default", "selected": False}, "refresh": 1, "regex": "", "options": [], "skipUrlSync": False},
        variable("cluster", f"label_values({prefix}weir_build_info, cluster)"),
        asked("namespace", "weir_build_info", 'cluster=~"$cluster"'),
        asked("job", "weir_build_info", 'cluster=~"$cluster",namespace=~"$namespace"'),
        asked("backend", "weir_backend_up", P),
        asked("model_name", "weir_requests_offered_total", B),
    ]
    if by_instance:
        made.append(asked("instance", "weir_backend_up", B))
    targets = ["0.9", "0.95", "0.99", "0.999"]
    options = [{"text": value, "value": value, "selected": value == "0.99"} for value in targets]
    made.append({"type": "custom", "name": "slo_target", "label": "SLO target", "query": ",".join(targets), "current": {"text": "0.99", "value": "0.99", "selected": True}, "options": options, "hide": 0, "multi": False, "includeAll": False, "skipUrlSync": False})
    made.append({"type": "adhoc", "name": "filters", "label": "Filters", "datasource": DATASOURCE, "hide": 0, "skipUrlSync": False, "filters": []})
    return made


def variable(name, query):
    return {"type": "query", "name": name, "label": name.replace("_", " ").capitalize(), "datasource": DATASOURCE, "query": {"query": query, "refId": name}, "definition": query, "refresh": 2, "sort": 1, "regex": "", "hide": 0, "multi": True, "includeAll": True, "allValue": ".*", "current": {"text": ["All"], "value": ["$__all"], "selected": True}, "options": [], "skipUrlSync": False}


TEXTS = {"GPU held back": "GPU {{gpu}}: {{reason}} {{instance}}"}


def annotations(prefix):
    marks = [
        ("Configuration reloaded", BLUE, "changes(weir_config_last_reload_success_timestamp_seconds{P}[$__interval]) > 0"),
        ("Saturated", RED, 'weir_saturation_state{B,state="saturated"} == 1 and changes(weir_saturation_state{B,state="saturated"}[$__interval]) > 0'),
        ("Knee updated", GREEN, 'increase(weir_knee_updates_total{B,result="accepted"}[$__interval]) > 0'),
        ("Draining", YELLOW, "weir_draining{P} == 1"),
        ("Synthetic load", "purple", "weir_probe_active{B} == 1"),
        ("GPU held back", "orange", "max by (instance, gpu, reason) (weir_gpu_throttle_active{P}) == 1 and max by (instance, gpu, reason) (changes(weir_gpu_throttle_active{P}[$__interval])) > 0"),
        ("Restarted", GREY, "changes(process_start_time_seconds{P}[$__interval]) > 0"),
    ]
    shown = lambda name: name in ("Configuration reloaded", "Saturated", "Draining", "Synthetic load", "GPU held back", "Restarted")
    return [{"name": name, "datasource": DATASOURCE, "enable": shown(name), "hide": False, "iconColor": colour, "expr": expand(query, prefix), "titleFormat": name, "textFormat": TEXTS.get(name, "{{backend}} {{instance}}"), "step": "15s", "tagKeys": "", "useValueForTime": False} for name, colour, query in marks]
