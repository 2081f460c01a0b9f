"""What a scrape of a server's metrics says."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


class Metrics(dict[str, float]):
    """Samples by name as Prometheus writes it: ``name`` or ``name{a="b",c="d"}``."""

    @classmethod
    def parse(cls, text: str) -> Metrics:
        """Read the text format."""
        found = cls()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    def since(self, before: Metrics) -> Metrics:
        """What was counted after `before`; gauges are as they are."""
        counted = ("_total", "_count", "_sum", "_bucket")
        return Metrics(
            {
                key: value - before.get(key, 0)
                if key.partition("{")[0].endswith(counted)
                else value
                for key, value in self.items()
            }
        )

    def total(self, name: str) -> float:
        """The sum over all labels."""
        return sum(value for key, value in self.items() if key.partition("{")[0] == name)

    def dropped(self) -> dict[str, float]:
        """Packets dropped, by reason, without the zeros."""
        prefix = 'rtpfanout_packets_dropped_total{reason="'
        drops = {k[len(prefix) : -2]: v for k, v in self.items() if k.startswith(prefix)}
        return {reason: count for reason, count in drops.items() if count}

    def differences(self) -> tuple[float, float, float, float]:
        """(received - forwarded - dropped, attempted - sent - failed, attempted + withheld - due -
        rtcp, dropped as rtcp - rtcp by what became of it): zero at rest."""
        return (
            self["rtp_packets_received_total"]
            - self["rtpfanout_packets_forwarded_total"]
            - self.total("rtpfanout_packets_dropped_total"),
            self["rtpfanout_copies_attempted_total"]
            - self["rtp_packets_sent_total"]
            - self.total("rtpfanout_send_failures_total"),
            self["rtpfanout_copies_attempted_total"]
            + self["rtpfanout_copies_withheld_total"]
            - self["rtpfanout_copies_due_total"]
            - self["rtpfanout_copies_rtcp_total"],
            self['rtpfanout_packets_dropped_total{reason="rtcp"}']
            - self.total("rtpfanout_rtcp_taken_total")
            - self.total("rtpfanout_rtcp_dropped_total"),
        )
