// Alertmanager's webhook, version 4: one group of alerts a delivery.
//
// Kind made: alert. Dropped: "no alerts": a group without any.
#include "notifier/sources/fields.h"

namespace radiotower::notifier {

Parsed parse_alertmanager(const Arrival& arrival) {
  const Json& body = arrival.body;
  if (!at(body, "alerts").is_array()) return Malformed{"this is not a webhook of Alertmanager: no alerts"};
  Event event;
  event.kind = "alert";
  std::size_t firing = 0, resolved = 0, count = 0;
  for (const Json& alert : list(body, "alerts")) {
    if (!alert.is_object()) continue;
    const Status status = lenient_status(text(alert, "status"));
    const Json &labels = at(alert, "labels"), &annotations = at(alert, "annotations");
    const std::string name = first_of({text(labels, "alertname"), "alert"});
    const std::string where = first_of({text(labels, "instance"), text(labels, "host"), text(labels, "pod"), text(labels, "service")});
    const std::string what = first_of({text(annotations, "summary"), text(annotations, "description"), text(annotations, "message")});
    event.items.push_back({name + (where.empty() ? "" : " on " + where), text(alert, "generatorURL"),
                           status == Status::success ? "" : first_line(what), status});  // what was wrong is no longer
    ++count;
    if (status == Status::failed) ++firing;
    if (status == Status::success) ++resolved;
  }
  const std::string state = text(body, "status"), group = text(body, "groupKey");
  event.status = !state.empty() ? lenient_status(state)
                 : firing > 0   ? Status::failed
                 : resolved > 0 ? Status::success
                                : Status::none;
  event.items_total = event.items.size() + whole(number(body, "truncatedAlerts"));
  if (event.items_total == 0) return Dropped{"no alerts"};
  const Json& labels = at(body, "commonLabels");
  event.title = first_of({text(labels, "alertname"), text(body, "groupLabels", "alertname"), counted(event.items_total, "alert")});
  event.project = first_of({text(labels, "project"), text(labels, "namespace"), text(labels, "service"), text(labels, "job")});
  event.url = text(body, "externalURL");
  event.text = first_of({text(body, "commonAnnotations", "summary"), text(body, "commonAnnotations", "description")});
  if (!event.items.empty() && event.items[0].detail == event.text) event.text.clear();  // common to all, so each says it
  add_fact(event, "Severity", text(labels, "severity"));
  if (firing > 0 && firing < count) add_fact(event, "Firing", std::to_string(firing) + " of " + std::to_string(count));
  // No identity: a group comes again with the same bytes after repeat_interval, and that reminder is meant to be read.
  if (!group.empty()) event.subject = event.history_key = "alert/" + group;
  return event;
}

}  // namespace radiotower::notifier
