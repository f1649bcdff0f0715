"""How often each kind of question is asked, set so that its answers come out about even in the yard."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """A kind is drawn with `weight`; where frames allow only the answer `common`, it is kept with probability `kept`,
    about how often the other answer is possible in the yard for each time that only this one is."""

    weight: float = 1.0
    kept: float = 1.0
    common: str = "no"


SHARES: dict[str, Share] = {
    "gate_open_now": Share(4.0, 0.16),
    "gate_closed_now": Share(2.0, 0.11, "yes"),
    "vehicle_now": Share(2.0, 0.7, "yes"),
    "person_now": Share(3.0, 0.65),
    "smoke_now": Share(5.0, 0.04),
    "colour_near_now": Share(3.0),
    "plate_read_now": Share(8.0),
    "plate_text_now": Share(6.0, 0.02),
    "plate_any_now": Share(4.0, 0.13),
    "person_bare_now": Share(5.0, 0.2),
    "person_helmet_now": Share(3.0, 0.27),
    "helmet_nearest_now": Share(3.0),
    "person_carrying_now": Share(3.0, 0.2),
    "bag_left_now": Share(4.0, 0.25),
    "person_far_now": Share(5.0, 0.08),
    "person_small_now": Share(3.0, 0.07),
    "vehicle_small_now": Share(1.0, 0.04),
    "barrier_up_now": Share(2.0, 0.13),
    "barrier_down_now": Share(1.0, 0.07, "yes"),
    "vehicle_kind_now": Share(1.0, 0.1),
    "vehicle_colour_now": Share(1.0, 0.1),
    "vehicle_painted_now": Share(2.0, 0.1),
    "vehicle_placed_now": Share(1.0, 0.1),
    "dog_now": Share(2.0, 0.04),
    "person_vest_now": Share(1.5, 0.3),
    "light_now": Share(0.5),
    "rain_now": Share(0.5, 0.2),
    "kind_near_now": Share(1.0),
    "count_people_now": Share(2.0, 0.25, "0"),
    "count_vehicles_now": Share(1.0, 0.25, "0"),
    "watch_now": Share(6.0),
    "at_gate": Share(2.0, 0.1),
    "at_barrier": Share(1.0, 0.1),
    "at_person": Share(2.0, 0.1),
    "at_vehicle": Share(1.0, 0.2, "yes"),
    "at_dog": Share(1.0, 0.05),
    "ever_gate": Share(1.0, 0.5, "yes"),
    "ever_person": Share(1.0, 0.17, "yes"),
    "ever_dog": Share(1.0, 0.35),
    "ever_smoke": Share(1.0, 0.06),
    "ever_kind": Share(1.0, 0.5),
    "ever_painted": Share(1.5, 0.1),
    "never": Share(1.0, 0.5, "yes"),
    "nobody": Share(1.0, 0.17),
    "before": Share(1.5),
    "first": Share(1.5),
    "times_gate": Share(1.5, 0.5, "0"),
    "times_barrier": Share(1.0, 0.4, "0"),
    "interval": Share(5.0),
    "unknown": Share(2.0),
}
