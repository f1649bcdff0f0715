"""The frequency of each kind of question, set so that its answers come out about even in the yard."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KindShare:
    """A kind is drawn with `weight`; where frames allow only the answer `common`, it is kept with probability `kept`,
    about how often the other answer is possible in the yard for each time that only this one is."""

    weight: float = 1.0
    kept: float = 1.0
    common: str = "no"


SHARES: dict[str, KindShare] = {
    "gate_open_now": KindShare(4.0, 0.16),
    "gate_closed_now": KindShare(2.0, 0.11, "yes"),
    "vehicle_now": KindShare(2.0, 0.7, "yes"),
    "person_now": KindShare(3.0, 0.65),
    "smoke_now": KindShare(5.0, 0.04),
    "colour_near_now": KindShare(3.0),
    "plate_read_now": KindShare(8.0),
    "plate_text_now": KindShare(6.0, 0.02),
    "plate_any_now": KindShare(4.0, 0.13),
    "person_bare_now": KindShare(5.0, 0.2),
    "person_helmet_now": KindShare(3.0, 0.27),
    "helmet_nearest_now": KindShare(3.0),
    "person_carrying_now": KindShare(3.0, 0.2),
    "bag_left_now": KindShare(4.0, 0.25),
    "person_far_now": KindShare(5.0, 0.08),
    "person_small_now": KindShare(3.0, 0.07),
    "vehicle_small_now": KindShare(1.0, 0.04),
    "barrier_up_now": KindShare(2.0, 0.13),
    "barrier_down_now": KindShare(1.0, 0.07, "yes"),
    "vehicle_kind_now": KindShare(1.0, 0.1),
    "vehicle_colour_now": KindShare(1.0, 0.1),
    "vehicle_painted_now": KindShare(2.0, 0.1),
    "vehicle_placed_now": KindShare(1.0, 0.1),
    "dog_now": KindShare(2.0, 0.04),
    "person_vest_now": KindShare(1.5, 0.3),
    "light_now": KindShare(0.5),
    "rain_now": KindShare(0.5, 0.2),
    "kind_near_now": KindShare(1.0),
    "count_people_now": KindShare(2.0, 0.25, "0"),
    "count_vehicles_now": KindShare(1.0, 0.25, "0"),
    "watch_now": KindShare(6.0),
    "at_gate": KindShare(2.0, 0.1),
    "at_barrier": KindShare(1.0, 0.1),
    "at_person": KindShare(2.0, 0.1),
    "at_vehicle": KindShare(1.0, 0.2, "yes"),
    "at_dog": KindShare(1.0, 0.05),
    "ever_gate": KindShare(1.0, 0.5, "yes"),
    "ever_person": KindShare(1.0, 0.17, "yes"),
    "ever_dog": KindShare(1.0, 0.35),
    "ever_smoke": KindShare(1.0, 0.06),
    "ever_kind": KindShare(1.0, 0.5),
    "ever_painted": KindShare(1.5, 0.1),
    "never": KindShare(1.0, 0.5, "yes"),
    "nobody": KindShare(1.0, 0.17),
    "before": KindShare(1.5),
    "first": KindShare(1.5),
    "times_gate": KindShare(1.5, 0.5, "0"),
    "times_barrier": KindShare(1.0, 0.4, "0"),
    "interval": KindShare(5.0),
    "unknown": KindShare(2.0),
}
