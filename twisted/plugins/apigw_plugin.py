from twisted.application.service import ServiceMaker

apigw = ServiceMaker(
    "apigw",
    "apigw.tap",
    "An API gateway: routing, authentication, rate limits and circuit breakers in front of services.",
    "apigw",
)
